package catest_test

import (
	"testing"

	"signet/ca"
	"signet/ca/catest"
)

func TestMemoryKeepsTheContract(t *testing.T) {
	t.Parallel()
	catest.Suite(t, func(*testing.T) ca.Store { return catest.New() })
}
