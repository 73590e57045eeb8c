package main

import (
	"strconv"
	"strings"
	"time"
)

// parseMoment reads a point in time as docker's until= takes it: a duration
// before now ("24h"), a date, with a time of day or a zone where wanted (local
// time where not), or seconds since 1970.
func parseMoment(s string, now time.Time) (time.Time, bool) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), true
	}
	for _, form := range []string{
		"2006-01-02", "2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02T15:04:05.999999999",
		"2006-01-02Z07:00", "2006-01-02T15:04Z07:00", time.RFC3339Nano,
	} {
		if t, err := time.ParseInLocation(form, s, time.Local); err == nil {
			return t, true
		}
	}
	whole, fraction, _ := strings.Cut(s, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	if fraction == "" {
		return time.Unix(seconds, 0), true
	}
	nanos, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 64)
	return time.Unix(seconds, int64(nanos)), err == nil
}
