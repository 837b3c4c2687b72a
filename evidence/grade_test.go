package evidence_test

import (
	"slices"
	"strings"
	"testing"

	"signet/evidence"
)

func TestGrades(t *testing.T) {
	t.Parallel()
	clean := drill(refusedRead, refusedWrap, noDerive)
	for _, c := range []struct {
		name       string
		attributes map[string]any
		drill      evidence.Drill
		want       evidence.Grade
		reasons    []string // each is part of the reason at its place
	}{
		{"born there, every attack refused", born, clean, evidence.Drilled,
			[]string{"generated in it", "refused 2 attacks and has no means for 1 more", "vendor has not signed"}},

		{"extractable", but(map[string]any{"CKA_EXTRACTABLE": true}), clean, evidence.Exportable, []string{"wrapped and taken out (CKA_EXTRACTABLE is true)"}},
		{"readable", but(map[string]any{"CKA_SENSITIVE": false}), clean, evidence.Exportable, []string{"in plain text to whoever is logged in (CKA_SENSITIVE is false)"}},
		{"nobody knows whether it is extractable", but(map[string]any{"CKA_EXTRACTABLE": nil}), clean, evidence.Exportable, []string{"not answer for CKA_EXTRACTABLE"}},
		{"nobody knows whether it is sensitive", but(map[string]any{"CKA_SENSITIVE": nil}), clean, evidence.Exportable, []string{"not answer for CKA_SENSITIVE"}},
		{"the word true is not true", but(map[string]any{"CKA_SENSITIVE": "true"}), clean, evidence.Exportable, []string{"not answer for CKA_SENSITIVE"}},
		{"nothing is known", nil, evidence.Drill{}, evidence.Exportable, []string{
			"CKA_EXTRACTABLE", "CKA_SENSITIVE", "CKA_LOCAL", "CKA_ALWAYS_SENSITIVE", "CKA_NEVER_EXTRACTABLE", "CKA_TOKEN", "CKA_PRIVATE", "no attack on the key was tried"}},

		{"not generated there: SoftHSM2 after an import, every key of NSS", but(map[string]any{"CKA_LOCAL": false}), clean, evidence.Imported, []string{"does not say that the key was generated in it (CKA_LOCAL is false)"}},
		{"once readable", but(map[string]any{"CKA_ALWAYS_SENSITIVE": false}), clean, evidence.Imported, []string{"once be read in plain text"}},
		{"once extractable", but(map[string]any{"CKA_NEVER_EXTRACTABLE": false}), clean, evidence.Imported, []string{"once be wrapped"}},
		{"a session object", but(map[string]any{"CKA_TOKEN": false}), clean, evidence.Imported, []string{"not kept in the token"}},
		{"public", but(map[string]any{"CKA_PRIVATE": false}), clean, evidence.Imported, []string{"without logging in"}},
		{"its origin is not known", but(map[string]any{"CKA_LOCAL": nil}), clean, evidence.Imported, []string{"not answer for CKA_LOCAL"}},

		{"never attacked", born, evidence.Drill{}, evidence.Asserted, []string{"no attack on the key was tried"}},
		{"may decrypt", but(map[string]any{"CKA_DECRYPT": true}), clean, evidence.Asserted, []string{"may also decrypt (CKA_DECRYPT is true)"}},
		{"may unwrap", but(map[string]any{"CKA_UNWRAP": true}), clean, evidence.Asserted, []string{"may also unwrap other keys"}},
		{"may derive", but(map[string]any{"CKA_DERIVE": true}), clean, evidence.Asserted, []string{"may also derive other keys"}},
		{"an attack got through", born, drill(refusedRead, attack("wrap-CKM_AES_KEY_WRAP", evidence.Yielded, "the key came out")), evidence.Asserted,
			[]string{"gave way to the attack wrap-CKM_AES_KEY_WRAP on the key: the key came out"}},
		{"an attack without a clear answer", born, drill(refusedRead, attack("copy", evidence.Inconclusive, "CKR_DEVICE_ERROR")), evidence.Asserted,
			[]string{"the attack copy on the key ended without a clear answer: CKR_DEVICE_ERROR"}},
		{"an outcome of another version", born, drill(refusedRead, attack("copy", "postponed", "later")), evidence.Asserted, []string{"without a clear answer"}},
		{"reading was not refused", born, drill(refusedWrap, attack("read-CKA_VALUE", evidence.NotApplicable, "CKR_ATTRIBUTE_TYPE_INVALID")), evidence.Asserted,
			[]string{"did not once refuse to read"}},
		{"only a canary was not read", born, drill(refusedWrap, evidence.Attack{Name: "read-again-CKA_VALUE", Call: "C_GetAttributeValue", Target: "canary",
			Outcome: evidence.Refused, Result: "CKR_ATTRIBUTE_SENSITIVE"}), evidence.Asserted, []string{"did not once refuse to read"}},
		{"nothing applied", born, drill(noDerive), evidence.Asserted, []string{"did not once refuse to read"}},

		{"a lower grade hides no reason for the next", but(map[string]any{"CKA_EXTRACTABLE": true, "CKA_NEVER_EXTRACTABLE": false, "CKA_UNWRAP": true}),
			drill(refusedRead, attack("wrap-CKM_AES_KEY_WRAP", evidence.Yielded, "the key came out")), evidence.Exportable,
			[]string{"CKA_EXTRACTABLE is true", "CKA_NEVER_EXTRACTABLE is false", "CKA_UNWRAP is true", "gave way"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			grade, reasons := evidence.GradeOf(c.attributes, c.drill)
			if grade != c.want {
				t.Errorf("grade %q, want %q", grade, c.want)
			}
			if len(reasons) != len(c.reasons) {
				t.Fatalf("reasons %q, want %d", reasons, len(c.reasons))
			}
			for i, part := range c.reasons {
				if !strings.Contains(reasons[i], part) {
					t.Errorf("reason %q lacks %q", reasons[i], part)
				}
			}
		})
	}
}

func TestGradesAreOrdered(t *testing.T) {
	t.Parallel()
	for i, g := range evidence.Grades {
		for j, min := range evidence.Grades {
			if g.AtLeast(min) != (i >= j) {
				t.Errorf("%q at least %q: %t", g, min, g.AtLeast(min))
			}
		}
		if !g.AtLeast("") || evidence.Grade("").AtLeast(g) || evidence.Grade("gold").AtLeast(g) || g.AtLeast("gold") {
			t.Errorf("%q against the zero and unknown grades", g)
		}
	}
	if evidence.Grade("gold").AtLeast("gold") || evidence.Grade("").AtLeast("") {
		t.Error("what is no grade reaches something")
	}
	if !slices.IsSortedFunc(evidence.Grades, func(a, b evidence.Grade) int {
		if b.AtLeast(a) {
			return -1
		}
		return 1
	}) {
		t.Error("the grades are not in order")
	}
}

// A drill says nothing of a key that is in another token by now.
func TestADrillOnAnotherTokenCountsForNothing(t *testing.T) {
	t.Parallel()
	signer := seeded("attester")
	s := statement(t, signer.Public())
	moved := drill(refusedRead, refusedWrap)
	moved.Token = "5ec04d"
	s.Drill = &moved
	document, err := evidence.Sign(s, signer)
	if err != nil {
		t.Fatal(err)
	}
	report, err := evidence.Verify(document, evidence.Options{Now: signedAt})
	if err != nil || report.Grade != evidence.Asserted || !strings.Contains(report.Text(), `another token, with the serial number "5ec04d"`) {
		t.Errorf("grade %s, %v:\n%s", report.Grade, err, report.Text())
	}
}
