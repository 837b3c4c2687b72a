package main

import (
	"bytes"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// The script has its own copy of the document, because scripts see nothing outside themselves.
func TestTheScriptHasTheDocumentOfPackageEvidence(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("../../evidence/testdata/drilled.json")
	if err != nil {
		t.Fatal(err)
	}
	script, err := txtar.ParseFile("testdata/script/evidence.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range script.Files {
		if file.Name == "document.json" && !bytes.Equal(file.Data, want) {
			t.Error("document.json is another: copy evidence/testdata/drilled.json into the script")
		}
	}
}
