package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/pflag"
)

// ErrConfig says that the file or a variable is wrong. Settings that were read
// before it may have been set; whoever gets it must not go on.
var ErrConfig = errors.New("mosaik: bad configuration")

// Setting is one setting as it is in effect.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// From says where the value comes from: "flag", "env MOSAIK_...", "FILE:LINE"
	// or "default".
	From string `json:"from"`
}

// Load sets the flags of settings that were not given on the command line from
// the environment and then from the file, and returns all of them in the order
// of their names. A variable that is empty counts as absent. An empty path means no file. The error wraps ErrConfig, or is
// what the operating system says of the file.
func Load(settings *pflag.FlagSet, path string, lookupEnv func(string) (string, bool)) ([]Setting, error) {
	from := map[string]string{}
	settings.VisitAll(func(f *pflag.Flag) {
		from[f.Name] = "default"
		if f.Changed {
			from[f.Name] = "flag"
		}
	})
	var err error
	settings.VisitAll(func(f *pflag.Flag) {
		name := EnvName(f.Name)
		value, given := lookupEnv(name)
		if err != nil || !given || value == "" || from[f.Name] != "default" {
			return
		}
		if setErr := f.Value.Set(value); setErr != nil {
			err = fmt.Errorf("%w: %s=%q: %w", ErrConfig, name, value, setErr)
		}
		from[f.Name] = "env " + name
	})
	if err != nil {
		return nil, err
	}
	if path != "" {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: there is no file %s", ErrConfig, path)
		}
		if err != nil {
			return nil, err
		}
		if err := apply(settings, path, string(data), from); err != nil {
			return nil, err
		}
	}
	var list []Setting
	settings.VisitAll(func(f *pflag.Flag) {
		list = append(list, Setting{Name: f.Name, Value: f.Value.String(), From: from[f.Name]})
	})
	return list, nil
}

// EnvName returns the variable that stands for a setting.
func EnvName(setting string) string {
	return "MOSAIK_" + strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
}

// apply sets from the text of a file what is still at its default. The whole
// file is checked, also what does not come into effect.
func apply(settings *pflag.FlagSet, path, text string, from map[string]string) error {
	var keys map[string]toml.Primitive
	meta, err := toml.Decode(text, &keys)
	if err != nil {
		return wrong(path, err)
	}
	for _, key := range meta.Keys() { // in the order of the file
		if len(key) > 1 {
			// Inside a table or dotted: there are no such settings, and a dotted key's
			// first part alone has no line.
			return fmt.Errorf("%w: %s: %s: %w", ErrConfig, path, key, errUnknown)
		}
		v := value{of: settings.Lookup(key[0]), effective: from[key[0]] == "default"}
		if err := meta.PrimitiveDecode(keys[key[0]], &v); err != nil {
			return wrong(path, err)
		}
		if v.effective {
			from[key[0]] = fmt.Sprintf("%s:%d", path, lineOf(&meta, keys[key[0]]))
		}
	}
	return nil
}

// wrong makes the TOML library's error ours. What it says comes with the line
// and the key, except for a few mistakes of syntax that have no key.
func wrong(path string, err error) error {
	var at toml.ParseError
	if !errors.As(err, &at) {
		return fmt.Errorf("%w: %s: %w", ErrConfig, path, err)
	}
	if at.LastKey == "" {
		return fmt.Errorf("%w: %s:%d: %s", ErrConfig, path, at.Position.Line, at.Message)
	}
	return fmt.Errorf("%w: %s:%d: %s: %s", ErrConfig, path, at.Position.Line, at.LastKey, at.Message)
}

// value receives one key's value from the TOML library, which gives what
// UnmarshalTOML complains of the key and the line.
type value struct {
	of        *pflag.Flag // nil: there is no such setting
	effective bool        // nothing that counts for more has set it
}

var errUnknown = errors.New("there is no such setting")

// UnmarshalTOML sets the flag.
func (v *value) UnmarshalTOML(data any) error {
	if v.of == nil {
		return errUnknown
	}
	words, err := words(data)
	if err != nil {
		return err
	}
	// A value is tried even if it does not count, so that a mistake in the file
	// does not come to light on the day a flag is left out.
	was := v.of.Value.String()
	list, ok := v.of.Value.(pflag.SliceValue)
	if _, given := data.([]any); given && !ok {
		return errors.New("one value is wanted, not a list")
	}
	if ok {
		kept := slices.Clone(list.GetSlice())
		err = list.Replace(words)
		if err == nil && !v.effective {
			err = list.Replace(kept)
		}
		return err
	}
	err = v.of.Value.Set(words[0])
	if err == nil && !v.effective {
		err = v.of.Value.Set(was)
	}
	return err
}

// words returns a TOML value as the texts that a flag would be given.
func words(data any) ([]string, error) {
	switch d := data.(type) {
	case string:
		return []string{d}, nil
	case int64, bool:
		return []string{fmt.Sprint(d)}, nil
	case []any:
		list := make([]string, 0, len(d))
		for _, e := range d {
			s, ok := e.(string)
			if !ok {
				return nil, fmt.Errorf("a list of strings is wanted, it holds %v", e)
			}
			list = append(list, s)
		}
		return list, nil
	case map[string]any, []map[string]any:
		return nil, errUnknown // settings are not grouped in tables
	}
	return nil, fmt.Errorf("a %T is no value of a setting", data)
}

// lineOf asks the TOML library for the line of a key, which it tells only with
// an error.
func lineOf(meta *toml.MetaData, key toml.Primitive) int {
	var at toml.ParseError
	if errors.As(meta.PrimitiveDecode(key, &value{}), &at) {
		return at.Position.Line
	}
	return 0
}
