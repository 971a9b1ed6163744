// Package api is how programs outside of the process read and write a node's
// logs: the HTTP API of the daemon, which docs/api.md describes for its users,
// and a client for it.
//
// # Where to read
//
//	local.go      Local: an engine's streams by name; what the server serves, and what the command line uses on a directory
//	append.go     records in, outcomes out, with many appends under way
//	record.go     a record as JSON, depending on how its stream is encoded
//	types.go      the other JSON documents
//	frame.go      the binary framing of runs and commits
//	server.go     routes, limits, draining
//	serve_*.go    the handlers
//	response.go   a response that goes on for long: buffering, deadlines, signs of life
//	errors.go     errors as status codes and JSON, and back
//	client.go     Client: the same as Local at the other end of a connection
//
// # Limits
//
// A server never holds more of a request or a response in memory than one record
// or one commit and a buffer. A client that sends or takes nothing for
// Options.Stall is cut off, so that it cannot hold on to the store; one that
// follows a stream and was cut off resumes at the seq it has seen. Appends reach
// the engine in the order of the request's records, Options.Window of them under
// way at once; when the engine's write path is full the request's body is not
// read any further, which is the back pressure the sender feels.
//
// # Goroutines
//
//	pipeline.runSubmit    one per append under way: reads records and submits them;
//	                      ends with the records or with the request
//	response.runFlush     one per response that follows a stream: sends what has been
//	                      buffered for a moment, and a sign of life when nothing has
//
// Both end before the handler that started them returns.
package api
