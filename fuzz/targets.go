package fuzz

// Target is a native fuzz target of this module. It is run by
//
//	go test -run '^$' -fuzz '^Name$' ./Package
type Target struct {
	Package string // directory, from the module's root
	Name    string // of the function
	Input   string // what it is fed
}

// Targets lists all of them: every decoder of bytes that come from a disk or
// from somebody else has one. They stand beside the decoders, in most cases in
// the tests of the package itself; a test of this package holds the list against
// the tree. The canary is not in it, since it must fail.
func Targets() []Target {
	return []Target{
		{"cmd/mosaik-node/internal/api", "FuzzFrames", "an answer of the HTTP API, as a client reads it"},
		{"cmd/mosaik-node/internal/conf", "FuzzLoad", "a configuration file"},
		{"cmd/mosaik-node/internal/ticks", "FuzzCSV", "a file of ticks"},
		{"coalition", "FuzzParse", "a coalition's file"},
		{"engine", "FuzzOffer", "the offer of a group's state to a member that lags"},
		{"engine", "FuzzPostings", "a row of the index: where the records of a key are"},
		{"engine", "FuzzProposal", "the command of a Raft entry, and what becomes of it"},
		{"engine", "FuzzReceipt", "what a proposer is told of its proposal"},
		{"engine", "FuzzState", "a group's state row"},
		{"engine", "FuzzStoreFile", "the file that says what a directory is, its sum made right"},
		{"engine/raftlog", "FuzzRecord", "a record of the Raft log, its checksums made right"},
		{"fuzz", "FuzzID", "the text of an ID"},
		{"fuzz", "FuzzName", "a name"},
		{"identity", "FuzzJWT", "the header and the claims of a token, its signature made right"},
		{"identity", "FuzzSignedEntry", "a peer's entry"},
		{"log", "FuzzCBOR", "a value in the default codec"},
		{"log", "FuzzDecodeBody", "the body of a commit, its digest made right"},
		{"log", "FuzzDecodeCommit", "a commit"},
		{"log", "FuzzGuard", "the conditions of a transaction"},
		{"log", "FuzzMachines", "commands of the built-in machines, and what they leave behind"},
		{"log", "FuzzParsePointer", "the text of a pointer"},
		{"log", "FuzzParsePosition", "the text of a position"},
		{"network", "FuzzBatch", "a batch of Raft messages of another node"},
		{"network", "FuzzChunk", "a piece of a Raft snapshot"},
		{"network", "FuzzFrames", "what comes on a connection after its handshake"},
		{"network", "FuzzHello", "the first message of a handshake"},
		{"network", "FuzzReadmit", "a member's request to be taken back, and the answer"},
		{"network", "FuzzRefused", "which groups a connection was refused for"},
		{"network", "FuzzShardMessages", "a request for a part of a shard, and the answer"},
		{"network/catalog", "FuzzGossip", "what a peer says of others, three messages"},
		{"network/catalog", "FuzzMessage", "a message of the catalog"},
		{"network/remote", "FuzzItem", "a part of the answer of another node's group"},
		{"network/remote", "FuzzMessage", "a message between a node and a guest"},
		{"network/remote", "FuzzRequest", "what a guest asks for"},
		{"organisms", "FuzzRecord", "a record of an organism: a commit with its evidence, a retirement, a revision"},
		{"organisms/agent", "FuzzStep", "a step of an agent, and its parameters"},
		{"organisms/oracle", "FuzzAnswer", "an exchange's answer"},
		{"organisms/oracle", "FuzzCatalog", "the catalog of an oracle's sources"},
		{"organisms/oracle", "FuzzFile", "an oracle's file, as TOML and as JSON"},
		{"organisms/oracle", "FuzzParameters", "the parameters of an oracle"},
		{"organisms/oracle", "FuzzPrice", "the text of a price"},
		{"organisms/oracle", "FuzzReplay", "a file of past prices, its digest made right"},
		{"organisms/oracle", "FuzzRound", "a round of an oracle, and the tick that follows from it"},
		{"organisms/oracle", "FuzzTick", "a price tick"},
		{"organisms/reputation", "FuzzParameters", "the utility of a reputation organism, and what it makes of a score"},
		{"replay", "FuzzVerifyPointer", "a pointer, and the bytes of a commit to hold it against"},
		{"snapshot", "FuzzExport", "an export of a group"},
		{"snapshot", "FuzzManifest", "the manifest of a sealed segment"},
		{"tdx", "FuzzAdmit", "a committed verdict"},
		{"tdx", "FuzzCollateral", "what Intel says of platforms and their patch levels"},
		{"tdx", "FuzzQuote", "a quote"},
		{"tdx", "FuzzTicket", "a ticket with a quote in it"},
	}
}
