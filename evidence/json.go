package evidence

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// file is the JSON document: the statement for people, and the DER form that is signed. All of it follows from the
// DER form, so there is one file for each of these, and every byte of it is checked.
type file struct {
	Statement Statement     `json:"statement"`
	Signature fileSignature `json:"signature"`
	Evidence  []byte        `json:"evidence"` // the DER form; it holds the statement and the signature too
}

type fileSignature struct {
	Algorithm string `json:"algorithm"`
	Value     []byte `json:"value"`
}

// encodeFile is the one JSON form of a document: fields in fixed order, two spaces, a final newline.
func encodeFile(f file) ([]byte, error) { return encodeJSON(f, "  ") }

// decodeFile reads a JSON document and takes nothing but the form that encodeFile makes.
func decodeFile(data []byte) (file, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return file{}, &Error{Reason: Malformed, Detail: err.Error()}
	}
	if again, err := encodeFile(f); err != nil || !bytes.Equal(again, data) {
		return file{}, &Error{Reason: NotCanonical, Detail: "the JSON has fields, an order or spaces of its own"}
	}
	return f, nil
}

// encodeStatement is the one form in which a statement is signed.
func encodeStatement(s Statement) ([]byte, error) {
	data, err := encodeJSON(s, "")
	return bytes.TrimSuffix(data, []byte("\n")), err
}

// decodeStatement reads what encodeStatement makes, and nothing else.
func decodeStatement(data []byte) (Statement, error) {
	var s Statement
	if err := json.Unmarshal(data, &s); err != nil {
		return Statement{}, &Error{Reason: Malformed, Detail: "the signed statement: " + err.Error()}
	}
	if again, err := encodeStatement(s); err != nil || !bytes.Equal(again, data) {
		return Statement{}, &Error{Reason: NotCanonical, Detail: "the signed statement has fields, an order or spaces of its own"}
	}
	return s, nil
}

func encodeJSON(v any, indent string) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	if err := encoder.Encode(v); err != nil {
		return nil, fmt.Errorf("encode JSON: %w", err)
	}
	return out.Bytes(), nil
}

// keyJSON is a key in a document.
type keyJSON struct {
	ID         string         `json:"id"`
	Label      string         `json:"label"`
	Type       string         `json:"type"`
	Size       int            `json:"size"`
	PublicKey  []byte         `json:"public_key"`
	Attributes map[string]any `json:"attributes"`
	Token      Token          `json:"token"`
	ReadAt     time.Time      `json:"read_at"`
}

// MarshalJSON implements [json.Marshaler].
func (k Key) MarshalJSON() ([]byte, error) {
	return encodeJSON(keyJSON{
		ID: hex.EncodeToString(k.ID), Label: k.Label, Type: k.Type, Size: k.Size, PublicKey: k.PublicKey,
		Attributes: k.Attributes, Token: k.Token, ReadAt: k.ReadAt,
	}, "")
}

// UnmarshalJSON implements [json.Unmarshaler]. Lists of texts become []string again.
func (k *Key) UnmarshalJSON(data []byte) error {
	var read keyJSON
	if err := json.Unmarshal(data, &read); err != nil {
		return err
	}
	id, err := hex.DecodeString(read.ID)
	if err != nil {
		return fmt.Errorf("read key id: %w", err)
	}
	for name, value := range read.Attributes {
		if list, ok := value.([]any); ok {
			if read.Attributes[name], err = texts(list); err != nil {
				return fmt.Errorf("read attribute %s: %w", name, err)
			}
		}
	}
	*k = Key{
		ID: id, Label: read.Label, Type: read.Type, Size: read.Size, PublicKey: read.PublicKey,
		Attributes: read.Attributes, Token: read.Token, ReadAt: read.ReadAt,
	}
	return nil
}

func texts(list []any) ([]string, error) {
	all := make([]string, len(list))
	for i, item := range list {
		text, ok := item.(string)
		if !ok {
			return nil, errors.New("a list holds something other than text")
		}
		all[i] = text
	}
	return all, nil
}
