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
	octets, err := appendSerial(nil, s)
	if err != nil {
		return nil, err
	}
	return new(big.Int).SetBytes(octets), nil
}

// appendSerial adds the octets of a serial number, most significant first, without leading zeros.
func appendSerial(b []byte, s string) ([]byte, error) {
	switch {
	case s == "":
		return nil, errors.New("serial number is empty")
	case len(s) > 2*maxSerialOctets:
		return nil, fmt.Errorf("serial number is longer than %d octets", maxSerialOctets)
	case s[0] == '0':
		return nil, errors.New("serial number is zero or has a leading zero")
	case len(s) == 2*maxSerialOctets && s[0] >= '8' && s[0] <= 'f':
		return nil, fmt.Errorf("serial number does not fit %d octets as a positive INTEGER", maxSerialOctets)
	}
	var octet byte
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		default:
			return nil, errors.New("serial number is not lower-case hex")
		}
		octet = octet<<4 | c
		if (len(s)-i)%2 == 1 { // the second digit of its octet
			b = append(b, octet)
		}
	}
	return b, nil
}

// validSerial reports whether n is positive and is encoded in at most 20 octets.
func validSerial(n *big.Int) bool {
	return n != nil && n.Sign() > 0 && n.BitLen() < 8*maxSerialOctets
}
