//go:build !unix

package main

import "os"

// terminalWidth returns 0: f is treated as a file.
func terminalWidth(*os.File) int { return 0 }
