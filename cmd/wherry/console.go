package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"
)

// console is a terminal whose last lines are drawn again and again. mpb's own
// stumbles where the person's ^C was echoed, where the window becomes narrower
// while bars stand in it, and over more bars than rows.
type console struct {
	bytes.Buffer // what the next Flush shows

	out   io.Writer
	drawn []int // the widths of the rows that stand there
	rows  []int // and of those in the buffer
}

func (c *console) IsTerminal() bool { return true }

// GetTermSize leaves a row above the bars, and one for the cursor below them.
func (c *console) GetTermSize() (width, height int, err error) {
	width, height = 80, 24
	if f, ok := c.out.(*os.File); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 { // some terminals don't know theirs
			width, height = w, h
		}
	}
	return width, max(height-2, 1), nil
}

// ReadFrom takes a row that is drawn again; what is said above comes by Write.
func (c *console) ReadFrom(r io.Reader) (int64, error) {
	before := c.Len()
	n, err := c.Buffer.ReadFrom(r)
	if row := c.Bytes()[before:]; len(row) > 0 {
		c.rows = append(c.rows, runewidth.StringWidth(strings.TrimRight(string(row), "\n")))
	}
	return n, err
}

// Flush takes away what was drawn and shows the buffer. It counts the rows
// itself: mpb is wrong about them where there are more than the window has.
func (c *console) Flush(int) error {
	width, _, _ := c.GetTermSize() // never fails
	up := 0
	for _, w := range c.drawn {
		up += max((w+width-1)/width, 1) // wrapped by a window that was wider then
	}
	var b bytes.Buffer
	b.WriteByte('\r')
	if up > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", up)
	}
	// Line by line, and the rest below: to wipe a whole window would put what stood in it into the scrollback.
	b.Write(bytes.ReplaceAll(c.Bytes(), []byte("\n"), []byte("\x1b[K\n")))
	b.WriteString("\x1b[J")
	c.drawn, c.rows = c.rows, nil
	c.Reset()
	_, err := c.out.Write(b.Bytes())
	return err
}
