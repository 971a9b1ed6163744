package api

import (
	"net/http"
)

// serveStreams lists the logs.
func (s *Server) serveStreams(w http.ResponseWriter, r *http.Request) error {
	if err := newParams(r).done(); err != nil {
		return err
	}
	list, err := s.local.Streams(r.Context())
	if err != nil {
		return err
	}
	return sendJSON(w, streamList{Streams: nonNil(list)})
}

type streamList struct {
	Streams []Stream `json:"streams"`
}

// serveStream describes one log.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request) error {
	p := newParams(r)
	of := ref(r, p)
	if err := p.done(); err != nil {
		return err
	}
	stream, err := s.local.Stream(r.Context(), of)
	if err != nil {
		return err
	}
	return sendJSON(w, stream)
}

// nonNil makes an empty list one in JSON, too.
func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
