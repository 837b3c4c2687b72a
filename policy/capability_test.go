package policy_test

import (
	"errors"
	"testing"

	"signet/policy"
)

var (
	acme, globex int64 = 1, 2
	alice, bob   int64 = 10, 11

	allCapabilities = policy.Capabilities{CreateCA: true, CreateCert: true, RevokeCert: true, ExportPrivateKey: true, DeleteCA: true}

	acmeObject   = policy.Object{OrganizationID: &acme, CreatedBy: &bob}
	globexObject = policy.Object{OrganizationID: &globex, CreatedBy: &bob}
	lonelyObject = policy.Object{CreatedBy: &bob}
	ownObject    = policy.Object{OrganizationID: &globex, CreatedBy: &alice}
	ownLonely    = policy.Object{CreatedBy: &alice}
	orphan       = policy.Object{}
)

func caller(role policy.Role, organization *int64, c policy.Capabilities) policy.Caller {
	return policy.Caller{UserID: alice, Username: "alice", Role: role, OrganizationID: organization, Capabilities: c}
}

var actions = []policy.Action{policy.Read, policy.CreateCA, policy.CreateCert, policy.RevokeCert, policy.ExportPrivateKey, policy.DeleteCA, policy.DrillKey}

// grantable are the actions that capabilities grant.
var grantable = actions[:len(actions)-1]

func TestAllow(t *testing.T) {
	t.Parallel()
	none := policy.Capabilities{}
	superuser := caller(policy.RoleSuperuser, nil, none)
	admin := caller(policy.RoleAdmin, &acme, none)
	user := caller(policy.RoleUser, &acme, none)
	granted := caller(policy.RoleUser, &acme, allCapabilities)
	zeroOrganization, zeroUser := ref[int64](0), ref[int64](0)

	tests := []struct {
		name    string
		caller  policy.Caller
		object  policy.Object
		allowed []policy.Action // every other action is denied
	}{
		{"nobody may do nothing to nothing", policy.Caller{}, orphan, nil},
		{"nobody does not own what was created by user 0", policy.Caller{}, policy.Object{CreatedBy: zeroUser}, nil},
		{"nobody is not a member of organization 0", policy.Caller{OrganizationID: zeroOrganization, Capabilities: allCapabilities}, policy.Object{OrganizationID: zeroOrganization}, nil},
		{"a user without id does not own what was created by user 0", policy.Caller{Role: policy.RoleUser}, policy.Object{CreatedBy: zeroUser}, nil},
		{"a superuser without id is nobody", policy.Caller{Role: policy.RoleSuperuser}, acmeObject, nil},
		{"an admin without id is nobody", policy.Caller{Role: policy.RoleAdmin, OrganizationID: &acme}, acmeObject, nil},
		{"a negative id is nobody", policy.Caller{UserID: -1, Role: policy.RoleSuperuser}, acmeObject, nil},
		{"no role, no rights", caller("", &acme, allCapabilities), acmeObject, nil},
		{"no role, no rights to own objects either", caller("", &acme, allCapabilities), ownObject, nil},
		{"an unknown role has no rights", caller("root", &acme, allCapabilities), acmeObject, nil},
		{"roles are compared exactly", caller("Superuser", &acme, allCapabilities), acmeObject, nil},

		{"a superuser may do everything", superuser, acmeObject, actions},
		{"a superuser may do everything to an object without organization", superuser, lonelyObject, actions},
		{"a superuser may do everything to an object without anything", superuser, orphan, actions},

		{"the creator may do everything, in another organization too", user, ownObject, actions},
		{"the creator may do everything to an object without organization", user, ownLonely, actions},
		{"the creator needs no organization", caller(policy.RoleUser, nil, none), ownLonely, actions},

		{"an object without organization is not an admin's", admin, lonelyObject, nil},
		{"an object without organization is not a user's, whatever the capabilities", granted, lonelyObject, nil},
		{"an object without organization is not of those without organization", caller(policy.RoleUser, nil, allCapabilities), lonelyObject, nil},
		{"an object without anything is not an admin's without organization", caller(policy.RoleAdmin, nil, allCapabilities), orphan, nil},

		{"an admin has no say in another organization", admin, globexObject, nil},
		{"capabilities do not reach into another organization", granted, globexObject, nil},
		{"a user does not read in another organization", user, globexObject, nil},
		{"an admin without organization has no say in any", caller(policy.RoleAdmin, nil, allCapabilities), acmeObject, nil},
		{"a user without organization reads in none", caller(policy.RoleUser, nil, allCapabilities), acmeObject, nil},

		{"an admin may do everything in the own organization, without capabilities", admin, acmeObject, actions},
		{"a user reads in the own organization", user, acmeObject, []policy.Action{policy.Read}},
		{"all capabilities grant everything but drills in the own organization", granted, acmeObject, grantable},
		{"an operator may do everything", policy.Caller{Username: "operator", Operator: true}, orphan, actions},
		{"an object without creator is its organization's", user, policy.Object{OrganizationID: &acme}, []policy.Action{policy.Read}},

		{"create_ca grants only that", caller(policy.RoleUser, &acme, policy.Capabilities{CreateCA: true}), acmeObject, []policy.Action{policy.Read, policy.CreateCA}},
		{"create_cert grants only that", caller(policy.RoleUser, &acme, policy.Capabilities{CreateCert: true}), acmeObject, []policy.Action{policy.Read, policy.CreateCert}},
		{"revoke_cert grants only that", caller(policy.RoleUser, &acme, policy.Capabilities{RevokeCert: true}), acmeObject, []policy.Action{policy.Read, policy.RevokeCert}},
		{"export_private_key grants only that", caller(policy.RoleUser, &acme, policy.Capabilities{ExportPrivateKey: true}), acmeObject, []policy.Action{policy.Read, policy.ExportPrivateKey}},
		{"delete_ca grants only that", caller(policy.RoleUser, &acme, policy.Capabilities{DeleteCA: true}), acmeObject, []policy.Action{policy.Read, policy.DeleteCA}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			allowed := map[policy.Action]bool{}
			for _, a := range tt.allowed {
				allowed[a] = true
			}
			for _, a := range append([]policy.Action{"", "READ", "destroy_key"}, actions...) {
				err := policy.Allow(tt.caller, a, tt.object)
				if allowed[a] && err != nil {
					t.Errorf("%s is denied: %v", a, err)
				}
				if !allowed[a] && !errors.Is(err, policy.ErrDenied) {
					t.Errorf("%q: got %v, want ErrDenied", a, err)
				}
			}
		})
	}
}

func TestAllowRootCA(t *testing.T) {
	t.Parallel()
	others := allCapabilities
	others.CreateCA = false
	createCA := policy.Capabilities{CreateCA: true}
	tests := []struct {
		name    string
		caller  policy.Caller
		allowed bool
	}{
		{"nobody", policy.Caller{}, false},
		{"nobody with the capability", policy.Caller{Capabilities: createCA}, false},
		{"a superuser without id", policy.Caller{Role: policy.RoleSuperuser}, false},
		{"an unknown role with the capability", caller("operator", &acme, createCA), false},
		{"no role with the capability", caller("", &acme, createCA), false},
		{"a user without the capability", caller(policy.RoleUser, &acme, policy.Capabilities{}), false},
		{"a user with every other capability", caller(policy.RoleUser, &acme, others), false},
		{"a user without organization and without the capability", caller(policy.RoleUser, nil, others), false},
		{"a user with the capability", caller(policy.RoleUser, &acme, createCA), true},
		{"a user without organization, with the capability", caller(policy.RoleUser, nil, createCA), true},
		{"an admin", caller(policy.RoleAdmin, &acme, policy.Capabilities{}), true},
		{"an admin without organization", caller(policy.RoleAdmin, nil, policy.Capabilities{}), true},
		{"a superuser", caller(policy.RoleSuperuser, nil, policy.Capabilities{}), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := policy.AllowRootCA(tt.caller)
			if tt.allowed && err != nil || !tt.allowed && !errors.Is(err, policy.ErrDenied) {
				t.Errorf("allowed %t, got %v", tt.allowed, err)
			}
		})
	}
}

func TestAllowSuperuser(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		caller  policy.Caller
		allowed bool
	}{
		{"nobody", policy.Caller{}, false},
		{"a superuser without id", policy.Caller{Role: policy.RoleSuperuser}, false},
		{"an admin", caller(policy.RoleAdmin, &acme, allCapabilities), false},
		{"a user with every capability", caller(policy.RoleUser, &acme, allCapabilities), false},
		{"a superuser", caller(policy.RoleSuperuser, nil, policy.Capabilities{}), true},
		{"an operator", policy.Caller{Operator: true}, true},
	} {
		if err := policy.AllowSuperuser(tt.caller); tt.allowed && err != nil || !tt.allowed && !errors.Is(err, policy.ErrDenied) {
			t.Errorf("%s: allowed %t, got %v", tt.name, tt.allowed, err)
		}
	}
}

func TestDeniedSaysWhatTheContractSays(t *testing.T) {
	t.Parallel()
	if got := policy.ErrDenied.Error(); got != "Insufficient permissions" {
		t.Errorf("got %q", got)
	}
}
