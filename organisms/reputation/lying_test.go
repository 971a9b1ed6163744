package reputation_test

import (
	"context"

	"github.com/mosaik-engine/mosaik/identity"
	"github.com/mosaik-engine/mosaik/log"
)

// lying is a store that has the log of one and shows the views of another.
type lying struct {
	*log.Memory
	views *log.Memory
}

// Home implements log.Store.
func (l lying) Home(key identity.ID) log.GroupStore { return lying{l.Memory, l.views} }

// View implements log.Store.
func (l lying) View(ctx context.Context, key identity.ID, c log.Consistency) (log.View, error) {
	return l.views.View(ctx, key, c)
}
