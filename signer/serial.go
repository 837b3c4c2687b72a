package signer

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
)

// maxSerialOctets bounds a serial number (RFC 5280, section 4.1.2.2). A positive INTEGER of so many octets has its
// top bit clear.
const maxSerialOctets = 20

// newSerial returns a serial number with 159 random bits, never zero.
func newSerial() (*big.Int, error) {
	octets := make([]byte, maxSerialOctets)
	for {
		if _, err := rand.Read(octets); err != nil {
			return nil, fmt.Errorf("draw serial number: %w", err)
		}
		octets[0] &= 0x7f
		if n := new(big.Int).SetBytes(octets); n.Sign() > 0 {
			return n, nil
		}
	}
}

// ParseSerial reads a serial number in the form that [Draft.Serial] writes.
func ParseSerial(s string) (*big.Int, error) {
	switch {
	case s == "":
		return nil, errors.New("serial number is empty")
	case len(s) > 2*maxSerialOctets:
		return nil, fmt.Errorf("serial number is longer than %d octets", maxSerialOctets)
	case s[0] == '0':
		return nil, errors.New("serial number is zero or has a leading zero")
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return nil, errors.New("serial number is not lower-case hex")
		}
	}
	n, _ := new(big.Int).SetString(s, 16)
	if !validSerial(n) {
		return nil, fmt.Errorf("serial number does not fit %d octets as a positive INTEGER", maxSerialOctets)
	}
	return n, nil
}

// validSerial reports whether n is positive and is encoded in at most 20 octets.
func validSerial(n *big.Int) bool {
	return n != nil && n.Sign() > 0 && n.BitLen() < 8*maxSerialOctets
}
