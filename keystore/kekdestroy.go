package keystore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
)

// errCurrentKEK is why a key-encryption key is not destroyed.
var errCurrentKEK = errors.New("it is the key-encryption key that seals")

// DestroyKEK deletes an old key-encryption key. What is still sealed under it is lost: that nothing is, the caller must
// know. The key that seals is refused, and so is any key that is no key-encryption key ([ErrNotFound]).
// Errors: [ErrNotFound], [ErrUnavailable].
func (t *Token) DestroyKEK(ctx context.Context, id []byte) error {
	done, err := t.lockMaking(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := t.destroyKEK(ctx, id); err != nil {
		return fmt.Errorf("destroy key-encryption key %x: %w", id, err)
	}
	return nil
}

func (t *Token) destroyKEK(ctx context.Context, id []byte) error {
	all, err := t.listKEKs(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(k listedKEK) bool { return bytes.Equal(k.id, id) })
	switch {
	case i < 0:
		return ErrNotFound
	case bytes.Equal(id, all[0].id):
		return errCurrentKEK
	}
	t.mu.Lock()
	delete(t.keks, string(id))
	t.mu.Unlock()
	return t.destroyObjects(ctx, id)
}

// destroyObjects deletes whatever keys have this CKA_ID.
func (t *Token) destroyObjects(ctx context.Context, id []byte) error {
	_, err := call(ctx, t, operation[struct{}]{name: "destroy", lock: t.slot.generating, run: func(s *session) (struct{}, error) {
		return struct{}{}, s.destroy(id, allKeys)
	}})
	return err
}
