package policy

import (
	"crypto/ed25519"
	"math/big"
	"slices"
)

// The field and the curve constant of edwards25519 (RFC 8032, section 5.1).
var (
	ed25519P = new(big.Int).Sub(new(big.Int).Lsh(one, 255), big.NewInt(19))
	ed25519D = func() *big.Int {
		d := new(big.Int).ModInverse(big.NewInt(121666), ed25519P)
		return d.Mul(d, big.NewInt(-121665)).Mod(d, ed25519P)
	}()
)

// checkEd25519 requires a canonical point on the curve that is not of small order: with such a key one signature
// fits many messages.
func checkEd25519(k ed25519.PublicKey) (KeySpec, []string) {
	if len(k) != ed25519.PublicKeySize {
		return KeySpec{}, []string{"the Ed25519 key does not have 32 octets"}
	}
	octets := slices.Clone(k)
	sign := octets[31] >> 7
	octets[31] &= 0x7f
	slices.Reverse(octets)
	y := new(big.Int).SetBytes(octets)
	x2 := ed25519X2(y)
	if y.Cmp(ed25519P) >= 0 || big.Jacobi(x2, ed25519P) < 0 || x2.Sign() == 0 && sign == 1 {
		return KeySpec{}, []string{"the Ed25519 key is not a point on its curve: make a new key"}
	}
	for range 3 { // eight times a point of small order is the neutral element (0, 1)
		y = ed25519Double(y)
	}
	if y.Cmp(one) == 0 {
		return KeySpec{}, []string{"the Ed25519 key is a point of small order: make a new key"}
	}
	return KeySpec{Type: Ed25519, Size: 256}, nil
}

// ed25519X2 returns x² of the points with the given y: (y² − 1) / (dy² + 1).
func ed25519X2(y *big.Int) *big.Int {
	y2 := new(big.Int).Mul(y, y)
	denominator := new(big.Int).Mul(ed25519D, y2)
	denominator.Add(denominator, one).ModInverse(denominator, ed25519P) // never 0: −1/d is not a square
	return y2.Sub(y2, one).Mul(y2, denominator).Mod(y2, ed25519P)
}

// ed25519Double returns the y of the double of the points with the given y: (y² + x²) / (1 − dx²y²). Both points
// with that y have doubles with the same y.
func ed25519Double(y *big.Int) *big.Int {
	x2 := ed25519X2(y)
	y2 := new(big.Int).Mul(y, y)
	denominator := new(big.Int).Mul(x2, y2)
	denominator.Mul(denominator, ed25519D).Sub(one, denominator).ModInverse(denominator, ed25519P)
	return y2.Add(y2, x2).Mul(y2, denominator).Mod(y2, ed25519P)
}
