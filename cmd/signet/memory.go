package main

import (
	"os"
	"runtime/debug"
)

// gcPercent lets the heap grow to four times what is in use before it is collected. What a server holds is small, some
// 15 MiB, while a certificate passes through 100 KiB: at 100 percent the collector takes a tenth of the processor.
const gcPercent = 300

// tuneMemory trades memory for processor time, unless the operator has decided (GOGC, see package runtime).
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
