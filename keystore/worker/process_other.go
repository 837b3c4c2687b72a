//go:build !linux

package worker

import "syscall"

// dieWithParent leaves it to the end of the pipe: only Linux has more.
func dieWithParent() *syscall.SysProcAttr { return nil }
