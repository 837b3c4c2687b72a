package worker

import "syscall"

// dieWithParent makes the kernel kill the worker when its parent is gone, even if the module keeps it from noticing
// the end of the pipe.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
