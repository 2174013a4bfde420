package e2e

// Results as tables, which "make test" shows.

import (
	"fmt"
	"strings"
	"testing"
	"text/tabwriter"
)

// A table is printed to the test's log when it is complete.
type table struct {
	title  string
	header []string
	rows   [][]string
}

func newTable(title string, header ...string) *table {
	return &table{title: title, header: header}
}

// row adds a row; each value is shown as %v shows it.
func (t *table) row(values ...any) {
	var row []string
	for _, v := range values {
		row = append(row, fmt.Sprint(v))
	}
	t.rows = append(t.rows, row)
}

func (t *table) print(to testing.TB) {
	to.Helper()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(t.header, "\t"))
	for _, row := range t.rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	w.Flush()
	to.Logf("%s\n%s", t.title, &b)
}
