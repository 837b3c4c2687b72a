package softhsmtest_test

import (
	"testing"

	"signet/keystore"
	"signet/softhsm/softhsmtest"
)

func TestTokensLiveSideBySide(t *testing.T) {
	t.Parallel()
	for range 4 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			cfgs := []keystore.Config{softhsmtest.Token(t), softhsmtest.Token(t)}
			for _, cfg := range cfgs {
				token, err := keystore.Open(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { token.Close() })
				// The same id on every token: none sees the keys of another.
				if _, err := token.Generate(t.Context(), keystore.Spec{ID: []byte("key"), Type: keystore.EC, Size: 256}); err != nil {
					t.Error(err)
				}
			}
			if cfgs[0].Token == cfgs[1].Token || cfgs[0].PIN == cfgs[1].PIN {
				t.Error("two tokens are alike")
			}
		})
	}
}
