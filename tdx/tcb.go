package tdx

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-tdx-guest/pcs"
)

// Status is Intel's judgement of one part of a platform at its patch level, worse
// ones larger. The numbers are stored in admission records and never change.
type Status uint8

// The statuses of Intel's PCS API v4, "TCB status".
const (
	StatusUnknown Status = iota // never Intel's word
	UpToDate
	SWHardeningNeeded // software in the TD must mitigate what the platform does not
	ConfigurationNeeded
	ConfigurationAndSWHardeningNeeded
	OutOfDate
	OutOfDateConfigurationNeeded
	Revoked
)

var statusNames = [...]string{"Unknown", "UpToDate", "SWHardeningNeeded", "ConfigurationNeeded",
	"ConfigurationAndSWHardeningNeeded", "OutOfDate", "OutOfDateConfigurationNeeded", "Revoked"}

// ParseStatus returns the status that Intel spells text.
func ParseStatus(text string) (Status, error) {
	if i := slices.Index(statusNames[1:], text); i >= 0 {
		return Status(i + 1), nil
	}
	return StatusUnknown, fmt.Errorf("tdx: unknown TCB status %q, want one of %s", text, strings.Join(statusNames[1:], ", "))
}

// String returns Intel's spelling.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("Status(%d)", uint8(s))
}

// MarshalText returns Intel's spelling. The error is always nil.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// TCB is what the collateral says about the patch level of everything that a quote
// rests on.
type TCB struct {
	Platform Status // processor, microcode, SGX enclaves
	Module   Status // the TDX module; the platform's where the platform's level covers it
	QE       Status // the quoting enclave

	// Advisories are Intel's security advisories that the three matched levels name,
	// sorted, each once.
	Advisories []string

	// EvaluationNumber is the lower tcbEvaluationDataNumber of TCB info and QE
	// identity: Intel raises it with every round of fixes that it makes a rule.
	EvaluationNumber uint32
}

// Worst returns the worst of the three statuses.
func (t *TCB) Worst() Status { return max(t.Platform, t.Module, t.QE) }

// ErrTCB reports a quote whose platform Intel's collateral does not know, or which
// go-tdx-guest refuses for its patch level.
var ErrTCB = errors.New("tdx: TCB level is not acceptable")

// evaluateTCB finds the levels of the collateral that fit a quote, as Intel's PCS
// API v4 describes it for TCB info version 3 ("Get TDX TCB Info") and QE identity
// version 2. It trusts both: signatures are checked before.
//
// go-tdx-guest has an evaluation of its own, which since January 2025 drops the
// platform's status wherever a TDX module identity applies (TEE_TCB_SVN[1] > 0): it
// accepts platforms that are out of date or even revoked. TestTCBTable holds both
// against each other.
func evaluateTCB(q *Quote, pck *pcs.PckExtensions, info *pcs.TcbInfo, qe *pcs.EnclaveIdentity) (TCB, error) {
	t := TCB{EvaluationNumber: uint32(max(0, min(info.TcbEvaluationDataNumber, qe.TcbEvaluationDataNumber)))}
	svns := [][16]byte{q.TEETCBSVN}
	if q.TDX15 && q.TEETCBSVN2 != q.TEETCBSVN {
		// The module was updated under the running TD. Both versions have had the TD's
		// memory in their hands, so the worse one counts.
		svns = append(svns, q.TEETCBSVN2)
	}
	var matched []pcs.TcbLevel
	for _, svn := range svns {
		platform, err := platformLevel(svn, pck, info)
		if err != nil {
			return TCB{}, err
		}
		module := platform
		if svn[1] > 0 {
			if module, err = moduleLevel(q, svn, info); err != nil {
				return TCB{}, err
			}
		}
		t.Platform = max(t.Platform, statusOf(platform))
		t.Module = max(t.Module, statusOf(module))
		matched = append(matched, platform, module)
	}
	enclave, err := qeLevel(&q.QE, qe)
	if err != nil {
		return TCB{}, err
	}
	t.QE = statusOf(enclave)
	for _, level := range append(matched, enclave) {
		t.Advisories = append(t.Advisories, level.AdvisoryIDs...)
	}
	slices.Sort(t.Advisories)
	t.Advisories = slices.Compact(t.Advisories)
	return t, nil
}

// statusOf maps a status that Intel may add in the future to the worst.
func statusOf(level pcs.TcbLevel) Status {
	if s, err := ParseStatus(string(level.TcbStatus)); err == nil {
		return s
	}
	return Revoked
}

// platformLevel returns the first level, from the newest down, none of whose
// versions is above the platform's.
func platformLevel(svn [16]byte, pck *pcs.PckExtensions, info *pcs.TcbInfo) (pcs.TcbLevel, error) {
	skip := 0
	if svn[1] > 0 {
		skip = 2 // the module's own versions are moduleLevel's matter
	}
	for _, level := range info.TcbLevels {
		if reaches(pck.TCB.CPUSvnComponents, level.Tcb.SgxTcbcomponents, 0) &&
			pck.TCB.PCESvn >= level.Tcb.Pcesvn &&
			reaches(svn[:], level.Tcb.TdxTcbcomponents, skip) {
			return level, nil
		}
	}
	return pcs.TcbLevel{}, fmt.Errorf("%w: no level of the TCB info fits the platform (TEE_TCB_SVN %x)", ErrTCB, svn)
}

func reaches(have []byte, want []pcs.TcbComponent, skip int) bool {
	if len(have) != len(want) {
		return false
	}
	for i := skip; i < len(have); i++ {
		if have[i] < want[i].Svn {
			return false
		}
	}
	return true
}

// moduleLevel returns the level of the TDX module whose major version is svn[1] at
// its version svn[0].
func moduleLevel(q *Quote, svn [16]byte, info *pcs.TcbInfo) (pcs.TcbLevel, error) {
	name := fmt.Sprintf("TDX_%02x", svn[1])
	for _, module := range info.TdxModuleIdentities {
		if !strings.EqualFold(module.ID, name) {
			continue
		}
		attributes := binary.LittleEndian.AppendUint64(nil, q.SEAMAttributes)
		if string(module.Mrsigner.Bytes) != string(q.MRSignerSEAM[:]) {
			return pcs.TcbLevel{}, fmt.Errorf("%w: MRSIGNERSEAM %s is not the signer of %s", ErrTCB, q.MRSignerSEAM, name)
		}
		if !masked(attributes, module.AttributesMask.Bytes, module.Attributes.Bytes) {
			return pcs.TcbLevel{}, fmt.Errorf("%w: SEAM attributes %#x are not those of %s", ErrTCB, q.SEAMAttributes, name)
		}
		for _, level := range module.TcbLevels {
			if uint32(svn[0]) >= level.Tcb.Isvsvn {
				return level, nil
			}
		}
		return pcs.TcbLevel{}, fmt.Errorf("%w: no level of %s fits its version %d", ErrTCB, name, svn[0])
	}
	return pcs.TcbLevel{}, fmt.Errorf("%w: the TCB info knows no module %s", ErrTCB, name)
}

// qeLevel holds the quoting enclave against its identity and returns its level.
func qeLevel(qe *QEReport, want *pcs.EnclaveIdentity) (pcs.TcbLevel, error) {
	miscSelect := binary.LittleEndian.AppendUint32(nil, qe.MiscSelect)
	switch {
	case string(want.Mrsigner.Bytes) != string(qe.MRSigner[:]):
		return pcs.TcbLevel{}, fmt.Errorf("%w: the quoting enclave is signed by %s", ErrTCB, hex.EncodeToString(qe.MRSigner[:]))
	case want.IsvProdID != qe.ISVProdID:
		return pcs.TcbLevel{}, fmt.Errorf("%w: the quoting enclave is product %d, want %d", ErrTCB, qe.ISVProdID, want.IsvProdID)
	case !masked(qe.Attributes[:], want.AttributesMask.Bytes, want.Attributes.Bytes):
		return pcs.TcbLevel{}, fmt.Errorf("%w: the quoting enclave's attributes are %x", ErrTCB, qe.Attributes)
	case !masked(miscSelect, want.MiscselectMask.Bytes, want.Miscselect.Bytes):
		return pcs.TcbLevel{}, fmt.Errorf("%w: the quoting enclave's MISCSELECT is %#x", ErrTCB, qe.MiscSelect)
	}
	for _, level := range want.TcbLevels {
		if uint32(qe.ISVSVN) >= level.Tcb.Isvsvn {
			return level, nil
		}
	}
	return pcs.TcbLevel{}, fmt.Errorf("%w: no level of the QE identity fits its version %d", ErrTCB, qe.ISVSVN)
}

// masked reports whether value under mask is want, all of one size.
func masked(value, mask, want []byte) bool {
	if len(value) != len(mask) || len(value) != len(want) {
		return false
	}
	for i := range value {
		if value[i]&mask[i] != want[i] {
			return false
		}
	}
	return true
}
