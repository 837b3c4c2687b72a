package main

import "time"

// drillInterval is how often the server attacks the key of each CA.
const drillInterval = 24 * time.Hour
