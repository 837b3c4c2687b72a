package policy_test

import (
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"testing"

	"signet/policy"
)

// The rules look at the modulus only, so most of these tests do without primes: rough numbers, which have no
// prime factor below 752 either, take their place.

func number(n int64) *big.Int { return big.NewInt(n) }

func power(base int64, exponent uint) *big.Int {
	return new(big.Int).Exp(number(base), new(big.Int).SetUint64(uint64(exponent)), nil)
}

func product(factors ...*big.Int) *big.Int {
	n := number(1)
	for _, f := range factors {
		n.Mul(n, f)
	}
	return n
}

func sum(terms ...*big.Int) *big.Int {
	n := number(0)
	for _, t := range terms {
		n.Add(n, t)
	}
	return n
}

func primesUpTo(limit int64) []*big.Int {
	var primes []*big.Int
	for n := int64(2); n <= limit; n++ {
		if number(n).ProbablyPrime(0) {
			primes = append(primes, number(n))
		}
	}
	return primes
}

// roughFrom returns the first rough number among start, start+step, start+2·step, …
func roughFrom(start, step *big.Int) *big.Int {
	small := product(primesUpTo(752)...)
	n := new(big.Int).Set(start)
	for new(big.Int).GCD(nil, nil, n, small).Cmp(number(1)) != 0 {
		n.Add(n, step)
	}
	return n
}

// modulus returns a rough number of so many bits that is not close to a square.
func modulus(bits uint) *big.Int {
	return roughFrom(sum(power(2, bits-1), power(3, bits/2)), number(2))
}

// rocaFactor returns k·M + (65537^a mod M) for a k of so many bits, M being the product of the first 126 primes: the
// form of the primes in 2048-bit keys.
func rocaFactor(a int64, bits uint) *big.Int {
	m := product(primesUpTo(701)...)
	residue := new(big.Int).Exp(number(65537), number(a), m)
	return roughFrom(sum(product(power(2, bits), m), residue), m)
}

// disagreeing returns a modulus that is a power of 65537 modulo every prime up to 167, but not the same power: the
// logarithm is 0 modulo 3 and 1 modulo 5, where 65537 has the orders 2 and 4.
func disagreeing() *big.Int {
	three, five := number(3), number(5)
	rest := product(primesUpTo(167)...)
	rest.Div(rest, product(three, five))
	n := sum(power(2, 2047), rest)
	n.Sub(n, new(big.Int).Mod(n, rest)).Add(n, number(1)) // 65537^0 modulo the others
	for new(big.Int).Mod(n, three).Int64() != 1 || new(big.Int).Mod(n, five).Int64() != 65537%5 {
		n.Add(n, rest)
	}
	return roughFrom(n, product(primesUpTo(167)...))
}

func TestCheckPublicKeyRSA(t *testing.T) {
	t.Parallel()
	real2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key := func(n *big.Int, e int) *rsa.PublicKey { return &rsa.PublicKey{N: n, E: e} }
	spec := func(bits int) policy.KeySpec { return policy.KeySpec{Type: policy.RSA, Size: bits} }
	p := roughFrom(sum(power(2, 1023), power(2, 1022), number(1)), number(2))
	apart := func(bits uint) *big.Int { return product(p, roughFrom(sum(p, power(2, bits)), number(2))) }
	const (
		factor = "the RSA modulus has a small prime factor: make a new key"
		tight  = "the two primes of the RSA key are too close to each other: make a new key"
		roca   = "the RSA key was made by a faulty chip (ROCA, CVE-2017-15361): make a new key elsewhere"
	)
	checkKeys(t, []keyRow{
		{name: "a negative modulus", key: key(new(big.Int).Neg(modulus(2048)), 65537), reason: "the public key is missing"},
		{name: "a modulus of 0", key: key(number(0), 65537), reason: "the public key is missing"},
		{name: "a modulus of 1", key: key(number(1), 65537), reason: "the RSA key has 1 bits: use at least 2048"},
		{name: "512 bits", key: key(modulus(512), 65537), reason: "the RSA key has 512 bits: use at least 2048"},
		{name: "1024 bits", key: key(modulus(1024), 65537), reason: "the RSA key has 1024 bits: use at least 2048"},
		{name: "2047 bits", key: key(modulus(2047), 65537), reason: "the RSA key has 2047 bits: use at least 2048"},
		{name: "8193 bits", key: key(modulus(8193), 65537), reason: "the RSA key has 8193 bits: use at most 8192"},
		{name: "16384 bits", key: key(modulus(16384), 65537), reason: "the RSA key has 16384 bits: use at most 8192"},
		{name: "2049 bits", key: key(modulus(2049), 65537), reason: "the RSA key has 2049 bits: use a multiple of 8"},

		{name: "exponent 0", key: key(modulus(2048), 0), reason: "the RSA key has the public exponent 0: use 65537"},
		{name: "exponent 1", key: key(modulus(2048), 1), reason: "the RSA key has the public exponent 1: use 65537"},
		{name: "exponent 2", key: key(modulus(2048), 2), reason: "the RSA key has the public exponent 2: use 65537"},
		{name: "exponent 3", key: key(modulus(2048), 3), reason: "the RSA key has the public exponent 3: use 65537"},
		{name: "exponent 17", key: key(modulus(2048), 17), reason: "the RSA key has the public exponent 17: use 65537"},
		{name: "exponent 65535", key: key(modulus(2048), 65535), reason: "the RSA key has the public exponent 65535: use 65537"},
		{name: "an even exponent", key: key(modulus(2048), 65538), reason: "the RSA key has the public exponent 65538: use 65537"},
		{name: "an exponent beyond 31 bits", key: key(modulus(2048), 1<<31+1), reason: "the RSA key has the public exponent 2147483649: use 65537"},
		{name: "a negative exponent", key: key(modulus(2048), -65537), reason: "the RSA key has the public exponent -65537: use 65537"},
		{name: "every reason is told", key: key(modulus(2049), 3), reason: "the RSA key has 2049 bits: use a multiple of 8; the RSA key has the public exponent 3: use 65537"},

		{name: "an even modulus", key: key(sum(modulus(2048), number(1)), 65537), reason: factor},
		{name: "a factor of 3", key: key(product(number(3), modulus(2047)), 65537), reason: factor},
		{name: "a factor of 751", key: key(product(number(751), modulus(2039)), 65537), reason: factor},
		{name: "the square of one prime", key: key(product(p, p), 65537), reason: tight},
		{name: "a prime and the next", key: key(product(p, roughFrom(sum(p, number(2)), number(2))), 65537), reason: tight},
		{name: "primes that share their upper half", key: key(apart(511), 65537), reason: tight},
		{name: "primes within 100 rounds of Fermat's method", key: key(apart(516), 65537), reason: tight},
		{name: "a modulus of the faulty chips", key: key(product(rocaFactor(5, 53), rocaFactor(700, 53)), 65537), reason: roca},
		{name: "another one", key: key(product(rocaFactor(1, 53), rocaFactor(123456789, 53)), 65537), reason: roca},

		{name: "primes beyond 100 rounds of Fermat's method", key: key(apart(520), 65537), want: spec(2048)},
		{name: "powers of 65537 that do not agree", key: key(disagreeing(), 65537), want: spec(2048)},
		{name: "one faulty prime in good company", key: key(product(rocaFactor(5, 53), p), 65537), want: spec(2048)},
		{name: "a new key", key: &real2048.PublicKey, want: spec(2048)},
		{name: "2048 bits", key: key(modulus(2048), 65537), want: spec(2048)},
		{name: "2056 bits", key: key(modulus(2056), 65537), want: spec(2056)},
		{name: "3072 bits", key: key(modulus(3072), 65537), want: spec(3072)},
		{name: "4096 bits", key: key(modulus(4096), 65537), want: spec(4096)},
		{name: "8192 bits", key: key(modulus(8192), 65537), want: spec(8192)},
		{name: "the largest exponent", key: key(modulus(2048), 1<<31-1), want: spec(2048)},
		{name: "the exponent after 65537", key: key(modulus(2048), 65539), want: spec(2048)},
	})
}
