package e2e

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// pageLimit is how long a browser may take.
const pageLimit = time.Minute

// cmdPage: page [dark] WIDTHxHEIGHT FILE NAME=COLOUR... has chromium without a network draw the page FILE in a window of
// that size, and prints what can be seen in the picture:
//
//	background COLOUR   that of the corner
//	overflow yes|no      whether anything reaches the right edge
//	ends above|below     whether the whole page fits into the height
//	NAME PIXELS          the longest horizontal line in that colour (rrggbb)
//
// The picture is FILE.png.
func cmdPage(ts *testscript.TestScript, _ bool, args []string) {
	scheme := "1"
	if args[0] == "dark" {
		scheme, args = "0", args[1:]
	}
	file := ts.MkAbs(args[1])
	ctx, cancel := context.WithTimeout(context.Background(), pageLimit)
	defer cancel()
	ts.Check(command(
		ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb",
		"--proxy-server=127.0.0.1:1", "--user-data-dir="+filepath.Join(ts.Getenv("STATE"), "chromium"),
		"--blink-settings=preferredColorScheme="+scheme, "--window-size="+strings.Replace(args[0], "x", ",", 1),
		"--screenshot="+file+".png", "file://"+file,
	))
	out := ts.Stdout()
	picture, err := readPicture(file + ".png")
	ts.Check(err)
	b := picture.Bounds()
	back := picture.At(b.Min.X, b.Min.Y)
	fmt.Fprintf(out, "background %s\n", colourText(back))
	fmt.Fprintf(out, "overflow %s\n", map[bool]string{true: "no", false: "yes"}[isPlain(picture, image.Rect(b.Max.X-4, b.Min.Y, b.Max.X, b.Max.Y))])
	fmt.Fprintf(out, "ends %s\n", map[bool]string{true: "above", false: "below"}[isPlain(picture, image.Rect(b.Min.X, b.Max.Y-4, b.Max.X, b.Max.Y))])
	for _, arg := range args[2:] {
		name, colour, _ := strings.Cut(arg, "=")
		fmt.Fprintf(out, "%s %d\n", name, longestLine(picture, colour))
	}
}

func readPicture(file string) (image.Image, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return png.Decode(f)
}

func colourText(c color.Color) string {
	r, g, b, _ := c.RGBA()
	return fmt.Sprintf("%02x%02x%02x", r>>8, g>>8, b>>8)
}

// isPlain says whether a part of the picture is all in the colour of the picture's corner.
func isPlain(picture image.Image, part image.Rectangle) bool {
	corner := colourText(picture.At(picture.Bounds().Min.X, picture.Bounds().Min.Y))
	for y := part.Min.Y; y < part.Max.Y; y++ {
		for x := part.Min.X; x < part.Max.X; x++ {
			if colourText(picture.At(x, y)) != corner {
				return false
			}
		}
	}
	return true
}

func longestLine(picture image.Image, colour string) int {
	longest := 0
	b := picture.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		run := 0
		for x := b.Min.X; x < b.Max.X; x++ {
			if colourText(picture.At(x, y)) != colour {
				run = 0
				continue
			}
			run++
			longest = max(longest, run)
		}
	}
	return longest
}
