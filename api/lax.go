package api

import (
	"encoding/json"
	"errors"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"

	"signet/fault"
)

// checker holds values against the contract, in the lax way of FastAPI (pydantic v2): what can only mean one thing is
// accepted. It collects every problem.
type checker struct{ problems []fault.Field }

func (c *checker) add(kind, msg string, loc []any, input any) {
	c.problems = append(c.problems, fault.Field{Type: kind, Loc: slices.Clone(loc), Msg: msg, Input: input})
}

// reject notes a problem with a value of schema s, whose input is shown unless it is secret.
func (c *checker) reject(s *openapi3.Schema, kind, msg string, loc []any, input any) any {
	if secret(s) {
		input = nil
	}
	c.add(kind, msg, loc, echo(input, 0))
	return nil
}

// value returns v as s wants it: nil, bool, int64, string, []any or map[string]any.
func (c *checker) value(s *openapi3.Schema, v any, loc []any) any {
	switch {
	case len(s.Enum) > 0:
		if !slices.Contains(s.Enum, v) {
			return c.reject(s, "enum", "Input should be "+oneOf(s.Enum), loc, v)
		}
		return v
	case s.Type.Is(openapi3.TypeInteger):
		return c.integer(s, v, loc)
	case s.Type.Is(openapi3.TypeString):
		return c.text(s, v, loc)
	case s.Type.Is(openapi3.TypeBoolean):
		return c.boolean(s, v, loc)
	case s.Type.Is(openapi3.TypeArray):
		return c.list(s, v, loc)
	}
	return c.object(s, v, loc)
}

// object checks the properties that the contract knows and leaves out the others, unless the contract says that there are none,
// and those that are only read. null for an optional property is the same as its absence; a default stands for either.
func (c *checker) object(s *openapi3.Schema, v any, loc []any) any {
	given, ok := v.(map[string]any)
	if !ok {
		c.add("model_attributes_type", "Input should be a valid dictionary or object to extract fields from", loc, nil)
		return nil
	}
	out := map[string]any{}
	names := make([]string, 0, len(s.Properties))
	for name := range s.Properties {
		names = append(names, name)
	}
	if only := s.AdditionalProperties.Has; only != nil && !*only {
		for name := range given {
			if s.Properties[name] == nil {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names) // problems come in the same order every time
	for _, name := range names {
		ref, at := s.Properties[name], append(slices.Clone(loc), name)
		sent, present := given[name]
		if ref == nil {
			c.add("extra_forbidden", "Extra inputs are not permitted", at, echo(sent, 0))
			continue
		}
		property := ref.Value
		if property.ReadOnly {
			continue
		}
		required := slices.Contains(s.Required, name)
		switch {
		case present && (sent != nil || required):
			out[name] = c.value(property, sent, at)
		case required:
			c.add("missing", "Field required", at, echo(public(s, given), 0))
		case property.Default != nil:
			out[name] = property.Default
		case present:
			out[name] = nil
		}
	}
	return out
}

var integral = regexp.MustCompile(`^[+-]?[0-9]+(\.0*)?$`)

func (c *checker) integer(s *openapi3.Schema, v any, loc []any) any {
	var n int64
	var err error
	switch v := v.(type) {
	case json.Number:
		n, err = integerOf(v)
	case string:
		trimmed := strings.TrimSpace(v)
		if !integral.MatchString(trimmed) {
			return c.reject(s, "int_parsing", "Input should be a valid integer, unable to parse string as an integer", loc, v)
		}
		digits, _, _ := strings.Cut(trimmed, ".")
		n, err = strconv.ParseInt(digits, 10, 64)
	default:
		return c.reject(s, "int_type", "Input should be a valid integer", loc, v)
	}
	switch {
	case errors.Is(err, strconv.ErrRange):
		return c.reject(s, "int_parsing_size", "Unable to parse input string as an integer, exceeded maximum size", loc, v)
	case err != nil:
		return c.reject(s, "int_from_float", "Input should be a valid integer, got a number with a fractional part", loc, v)
	case s.Min != nil && float64(n) < *s.Min:
		return c.reject(s, "greater_than_equal", "Input should be greater than or equal to "+strconv.FormatFloat(*s.Min, 'f', -1, 64), loc, v)
	case s.Max != nil && float64(n) > *s.Max:
		return c.reject(s, "less_than_equal", "Input should be less than or equal to "+strconv.FormatFloat(*s.Max, 'f', -1, 64), loc, v)
	}
	return n
}

// integerOf is the integer that a JSON number is. Errors: strconv.ErrRange beyond 64 bits, strconv.ErrSyntax for a
// number with a fractional part.
func integerOf(v json.Number) (int64, error) {
	n, err := strconv.ParseInt(v.String(), 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		return n, err
	}
	f, err := v.Float64()
	switch {
	case err != nil || f >= math.MaxInt64 || f < math.MinInt64:
		return 0, strconv.ErrRange
	case f != math.Trunc(f):
		return 0, strconv.ErrSyntax
	}
	return int64(f), nil
}

func (c *checker) text(s *openapi3.Schema, v any, loc []any) any {
	text, ok := v.(string)
	if !ok {
		return c.reject(s, "string_type", "Input should be a valid string", loc, v)
	}
	length := uint64(utf8.RuneCountInString(text))
	switch {
	case strings.ContainsRune(text, 0): // no database stores it, no certificate may hold it
		return c.reject(s, "value_error", "Value error, a string must not contain NUL characters", loc, v)
	case length < s.MinLength:
		return c.reject(s, "string_too_short", "String should have at least "+characters(s.MinLength), loc, v)
	case s.MaxLength != nil && length > *s.MaxLength:
		return c.reject(s, "string_too_long", "String should have at most "+characters(*s.MaxLength), loc, v)
	}
	if s.Format == "date-time" {
		t, ok := parseMoment(text)
		if !ok {
			return c.reject(s, notMoment, notMomentText, loc, v)
		}
		return t.Format(time.RFC3339Nano)
	}
	return text
}

// moments are the spellings of a time that are understood; without zone, UTC is meant.
var moments = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", time.DateOnly}

const notMoment, notMomentText = "datetime_from_date_parsing", "Input should be a valid datetime or date"

func parseMoment(text string) (time.Time, bool) {
	for _, layout := range moments {
		if t, err := time.Parse(layout, text); err == nil && t.Year() > 0 {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

func characters(n uint64) string {
	if n == 1 {
		return "1 character"
	}
	return strconv.FormatUint(n, 10) + " characters"
}

var booleans = map[string]bool{
	"true": true, "t": true, "yes": true, "y": true, "on": true, "1": true,
	"false": false, "f": false, "no": false, "n": false, "off": false, "0": false,
}

func (c *checker) boolean(s *openapi3.Schema, v any, loc []any) any {
	var word string
	switch v := v.(type) {
	case bool:
		return v
	case string:
		word = strings.ToLower(v)
	case json.Number:
		if n, err := integerOf(v); err == nil {
			word = strconv.FormatInt(n, 10)
		}
	default:
		return c.reject(s, "bool_type", "Input should be a valid boolean", loc, v)
	}
	b, ok := booleans[word]
	if !ok {
		return c.reject(s, "bool_parsing", "Input should be a valid boolean, unable to interpret input", loc, v)
	}
	return b
}

func (c *checker) list(s *openapi3.Schema, v any, loc []any) any {
	items, ok := v.([]any)
	if !ok {
		return c.reject(s, "list_type", "Input should be a valid list", loc, v)
	}
	if s.MaxItems != nil && uint64(len(items)) > *s.MaxItems {
		return c.reject(s, "too_long", "List should have at most "+strconv.FormatUint(*s.MaxItems, 10)+" items after validation, not "+strconv.Itoa(len(items)), loc, v)
	}
	out := make([]any, len(items))
	for i, item := range items {
		out[i] = c.value(s.Items.Value, item, append(slices.Clone(loc), i))
	}
	return out
}

// public is what may be shown of an object: what the contract knows and does not call secret.
func public(s *openapi3.Schema, given map[string]any) map[string]any {
	out := map[string]any{}
	for name, property := range s.Properties {
		if v, ok := given[name]; ok && !secret(property.Value) {
			out[name] = v
		}
	}
	return out
}

// What a problem shows of its input. A megabyte of nonsense is not sent back.
const (
	echoText  = 200 // characters
	echoItems = 20
	echoDepth = 3
)

func echo(v any, depth int) any {
	switch v := v.(type) {
	case string:
		if utf8.RuneCountInString(v) > echoText {
			return string([]rune(v)[:echoText]) + "…"
		}
		return v
	case json.Number:
		if len(v) > echoText {
			return v.String()[:echoText] + "…"
		}
		return v
	case []any:
		if depth == echoDepth {
			return "…"
		}
		out := []any{}
		for _, item := range v[:min(len(v), echoItems)] {
			out = append(out, echo(item, depth+1))
		}
		return out
	case map[string]any:
		if depth == echoDepth {
			return "…"
		}
		out := map[string]any{}
		for name, item := range v {
			if len(out) == echoItems {
				break
			}
			out[name] = echo(item, depth+1)
		}
		return out
	}
	return v
}
