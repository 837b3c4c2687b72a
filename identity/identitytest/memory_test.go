package identitytest_test

import (
	"testing"

	"signet/identity"
	"signet/identity/identitytest"
)

func TestMemoryKeepsTheContract(t *testing.T) {
	t.Parallel()
	identitytest.Suite(t, func(*testing.T) identity.Store { return identitytest.New() })
}
