package wire

import (
	"encoding/json"
	"testing"
)

func TestAnOptionalIDSurvivesTheWire(t *testing.T) {
	t.Parallel()
	seven := int64(7)
	for want, patch := range map[string]UserPatch{
		`{}`:                       {},
		`{"organization_id":null}`: {OrganizationID: OptionalID{Set: true}},
		`{"organization_id":7}`:    {OrganizationID: OptionalID{Set: true, ID: &seven}},
	} {
		data, err := json.Marshal(patch)
		if err != nil || string(data) != want {
			t.Errorf("%+v becomes %s, %v; want %s", patch, data, err, want)
		}
		var back UserPatch
		if err := json.Unmarshal(data, &back); err != nil || back.OrganizationID.Set != patch.OrganizationID.Set || (back.OrganizationID.ID == nil) != (patch.OrganizationID.ID == nil) {
			t.Errorf("%s becomes %+v, %v", data, back, err)
		}
	}
	var patch UserPatch
	if err := json.Unmarshal([]byte(`{"organization_id":"7"}`), &patch); err == nil {
		t.Error("a text is an id")
	}
}
