//go:build linux

package engine

import (
	"regexp"
	"strings"
)

// WithoutCredentials is text for people to read without the user and the password of the
// URLs in it.
func WithoutCredentials(text string) string {
	if !strings.Contains(text, "://") {
		return text
	}
	return regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s"'@]*(@[^/\s"'@]*)*@`).ReplaceAllString(text, "${1}xxxxx@")
}
