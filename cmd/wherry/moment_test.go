package main

import (
	"testing"
	"time"
)

func TestMoments(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	local := func(h, m, s, ns int) time.Time { return time.Date(2026, 1, 31, h, m, s, ns, time.Local) }
	for text, want := range map[string]time.Time{
		"24h": now.Add(-24 * time.Hour), "1h30m": now.Add(-90 * time.Minute), "-1h": now.Add(time.Hour),
		"2026-01-31": local(0, 0, 0, 0), "2026-01-31T10:20": local(10, 20, 0, 0),
		"2026-01-31T10:20:30": local(10, 20, 30, 0), "2026-01-31T10:20:30.5": local(10, 20, 30, 500_000_000),
		"2026-01-31Z":               time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC),
		"2026-01-31T10:20+02:00":    time.Date(2026, 1, 31, 8, 20, 0, 0, time.UTC),
		"2026-01-31T10:20:30-07:00": time.Date(2026, 1, 31, 17, 20, 30, 0, time.UTC),
		"1136073600":                time.Unix(1136073600, 0), "1136073600.000000001": time.Unix(1136073600, 1),
		"1136073600.5": time.Unix(1136073600, 500_000_000),
	} {
		if got, ok := parseMoment(text, now); !ok || !got.Equal(want) {
			t.Errorf("%q: got %v, %v; want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "yesterday", "2026-13-01", "2026-01-31 10:20", "1.x", "1.-5", "h"} {
		if got, ok := parseMoment(text, now); ok {
			t.Errorf("%q: got %v", text, got)
		}
	}
}
