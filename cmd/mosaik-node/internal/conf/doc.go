// Package conf fills in the settings of a command that its command line leaves
// open. A setting is a flag. Under the same name it may come from the
// environment or from a TOML file, and the first of these that has it decides:
//
//  1. the flag on the command line         --raft-log-bytes 256MiB
//  2. a variable of the environment        MOSAIK_RAFT_LOG_BYTES=256MiB
//  3. a key at the top level of the file   raft-log-bytes = "256MiB"
//  4. the flag's default
//
// A key in the file that is no setting is an error that names the key and its
// line, and so is a value that does not parse. Unknown variables are not: the
// environment belongs to others as well.
//
// The package starts no goroutines.
package conf
