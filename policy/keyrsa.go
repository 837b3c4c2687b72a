package policy

import (
	"crypto/rsa"
	"fmt"
	"math"
	"math/big"
	"sync"
)

const (
	minRSABits = 2048
	maxRSABits = 8192 // bounds the work of everybody who verifies

	// fermatRounds is how far from the square root of the modulus its factors are looked for (Baseline
	// Requirements 6.1.1.3 ask for 100).
	fermatRounds = 100
)

// checkRSA checks the parameters (SP 800-89, section 5.3.3; Baseline Requirements 6.1.5 and 6.1.6) and the known ways
// in which moduli are made badly (Baseline Requirements 6.1.1.3).
func checkRSA(k *rsa.PublicKey) (KeySpec, []string) {
	if k == nil || k.N == nil || k.N.Sign() <= 0 {
		return KeySpec{}, []string{"the public key is missing"}
	}
	bits := k.N.BitLen()
	switch {
	case bits < minRSABits:
		return KeySpec{}, []string{fmt.Sprintf("the RSA key has %d bits: use at least %d", bits, minRSABits)}
	case bits > maxRSABits:
		return KeySpec{}, []string{fmt.Sprintf("the RSA key has %d bits: use at most %d", bits, maxRSABits)}
	}
	var reasons []string
	if bits%8 != 0 {
		reasons = append(reasons, fmt.Sprintf("the RSA key has %d bits: use a multiple of 8", bits))
	}
	if k.E < 65537 || k.E%2 == 0 || k.E > math.MaxInt32 {
		reasons = append(reasons, fmt.Sprintf("the RSA key has the public exponent %d: use 65537", k.E))
	}
	switch {
	case new(big.Int).GCD(nil, nil, k.N, smallPrimes()).Cmp(one) != 0:
		reasons = append(reasons, "the RSA modulus has a small prime factor: make a new key")
	case isROCA(k.N):
		reasons = append(reasons, "the RSA key was made by a faulty chip (ROCA, CVE-2017-15361): make a new key elsewhere")
	case hasCloseFactors(k.N):
		reasons = append(reasons, "the two primes of the RSA key are too close to each other: make a new key")
	}
	return KeySpec{Type: RSA, Size: bits}, reasons
}

var one = big.NewInt(1)

// smallPrimes is the product of the primes below 752 (Baseline Requirements 6.1.6), which include 2.
var smallPrimes = sync.OnceValue(func() *big.Int {
	product := big.NewInt(1)
	for _, p := range primesBelow(752) {
		product.Mul(product, big.NewInt(p))
	}
	return product
})

func primesBelow(limit int64) []int64 {
	var primes []int64
	for n := int64(2); n < limit; n++ {
		if big.NewInt(n).ProbablyPrime(0) { // exact below 2^64
			primes = append(primes, n)
		}
	}
	return primes
}

// rocaPrimes are the primes modulo which the moduli of the faulty chips are known to be powers of 65537: the first
// 39 make up the primorial that all its key lengths share (Nemec et al., CCS 2017, section 2.1).
var rocaPrimes = sync.OnceValue(func() []rocaPrime {
	var primes []rocaPrime
	for _, p := range primesBelow(168)[1:] {
		r := rocaPrime{p: uint64(p), logarithm: make([]int, p)}
		for i := range r.logarithm {
			r.logarithm[i] = -1
		}
		for power := uint64(1); r.logarithm[power] < 0; power = power * 65537 % r.p {
			r.logarithm[power] = r.order
			r.order++
		}
		primes = append(primes, r)
	}
	return primes
})

type rocaPrime struct {
	p         uint64
	order     int   // of 65537 modulo p
	logarithm []int // to the base 65537 modulo p, by residue; -1 if there is none
}

// isROCA reports whether the modulus is a power of 65537 modulo the primorial of 167: the logarithms modulo each
// prime must exist and agree with each other. A modulus made at random passes once in about 2^150.
func isROCA(n *big.Int) bool {
	type congruence struct{ residue, modulus int }
	var seen []congruence
	for _, r := range rocaPrimes() {
		residue := new(big.Int).Mod(n, new(big.Int).SetUint64(r.p)).Uint64()
		x := r.logarithm[residue]
		if x < 0 {
			return false
		}
		for _, c := range seen {
			if (x-c.residue)%gcd(r.order, c.modulus) != 0 {
				return false
			}
		}
		seen = append(seen, congruence{x, r.order})
	}
	return true
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// hasCloseFactors looks for the factors with Fermat's method: n = a² − b² with a close to the square root of n.
func hasCloseFactors(n *big.Int) bool {
	a := new(big.Int).Sqrt(n)
	b2 := new(big.Int).Mul(a, a)
	b2.Sub(b2, n)
	root := new(big.Int)
	for range fermatRounds + 1 {
		if maybeSquare(b2) {
			root.Sqrt(b2)
			if root.Mul(root, root).Cmp(b2) == 0 {
				return true
			}
		}
		b2.Add(b2, a) // (a+1)² = a² + a + (a+1)
		a.Add(a, one)
		b2.Add(b2, a)
	}
	return false
}

// maybeSquare rules out most numbers that are not squares by their last six bits.
func maybeSquare(n *big.Int) bool {
	const residues = 1<<0 | 1<<1 | 1<<4 | 1<<9 | 1<<16 | 1<<17 | 1<<25 | 1<<33 | 1<<36 | 1<<41 | 1<<49 | 1<<57
	return n.Sign() >= 0 && uint64(residues)>>(n.Uint64()&63)&1 == 1
}
