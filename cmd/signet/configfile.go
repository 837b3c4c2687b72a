package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"
)

// configFile gives the flags their values from the YAML file that --config names, where neither the command line nor
// the environment does. An empty variable counts as unset: what starts programs often cannot leave one out.
type configFile struct {
	path   string
	values map[string]string
}

// Validate is called before the path of the file is known; the file is checked when it is read.
func (f *configFile) Validate(*kong.Application) error { return nil }

// Resolve returns the file's value for a flag, or nil.
func (f *configFile) Resolve(command *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	empty := false // a variable that is set to nothing has already replaced the default
	for _, name := range flag.Tag.Envs {
		value, set := os.LookupEnv(name)
		if value != "" {
			return nil, nil
		}
		empty = empty || set
	}
	value, err := f.lookup(command, parent, flag)
	if value == nil && err == nil && empty && flag.HasDefault {
		return flag.Default, nil
	}
	return value, err
}

func (f *configFile) lookup(command *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	i := slices.IndexFunc(parent.Flags, func(f *kong.Flag) bool { return f.Name == "config" })
	if i < 0 || flag.Name == "config" {
		return nil, nil
	}
	path, _ := command.FlagValue(parent.Flags[i]).(string)
	if path == "" {
		return nil, nil
	}
	if path != f.path {
		values, err := readConfigFile(path)
		if err != nil {
			return nil, err
		}
		f.path, f.values = path, values
	}
	if value, ok := f.values[flag.Name]; ok {
		return value, nil
	}
	return nil, nil
}

func readConfigFile(path string) (map[string]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	values, err := parseConfigFile(data)
	if err != nil {
		return nil, fmt.Errorf("read settings from %s: %w", path, err)
	}
	return values, nil
}

// parseConfigFile reads a YAML mapping of setting names to scalars.
func parseConfigFile(data []byte) (map[string]string, error) {
	var document map[string]any
	if err := yaml.Unmarshal(data, &document); err != nil {
		return nil, errors.New(yaml.FormatError(err, false, false)) // without the lines around it: a URL may hold a password
	}
	names := settingNames()
	values := map[string]string{}
	for key, value := range document {
		if !slices.Contains(names, key) {
			return nil, fmt.Errorf("unknown setting %q", key)
		}
		switch _, mapping := value.(map[string]any); value.(type) {
		case string, bool, int, int64, uint64, float64:
			values[key] = fmt.Sprint(value)
		default:
			if key != "tokens" || !mapping {
				return nil, fmt.Errorf("setting %q must be a single value", key)
			}
			text, err := yaml.Marshal(value)
			if err != nil {
				return nil, fmt.Errorf("setting %q: %w", key, err)
			}
			values[key] = string(text)
		}
	}
	return values, nil
}

// settingNames are the keys that a file may have: every setting but the file itself.
func settingNames() []string {
	var names []string
	for field := range reflect.TypeFor[Config]().Fields() {
		if name := field.Tag.Get("name"); name != "config" {
			names = append(names, name)
		}
	}
	return names
}
