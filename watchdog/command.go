package watchdog

// The command line of a function, as the setting fprocess spells it.

import (
	"errors"
	"strings"
)

// SplitCommand splits a command line into words by the quoting rules of a
// POSIX shell, and expands nothing: blanks separate, single quotes take
// everything literally, double quotes take everything but \" \\ \$ \` and an
// escaped newline, a backslash outside quotes takes the next character
// literally. An empty pair of quotes is an empty word.
func SplitCommand(s string) ([]string, error) {
	var (
		words  []string
		word   strings.Builder
		inWord bool
	)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case 0:
			return nil, errors.New("NUL byte, which no argument can hold")
		case ' ', '\t', '\n', '\r':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		case '\'':
			end := strings.IndexByte(s[i+1:], '\'')
			if end < 0 {
				return nil, errors.New("single quote without its closing quote")
			}
			quoted := s[i+1 : i+1+end]
			if strings.IndexByte(quoted, 0) >= 0 {
				return nil, errors.New("NUL byte, which no argument can hold")
			}
			word.WriteString(quoted)
			inWord = true
			i += end + 1
		case '"':
			n, err := splitDoubleQuoted(&word, s[i+1:])
			if err != nil {
				return nil, err
			}
			inWord = true
			i += n
		case '\\':
			i++
			if i == len(s) {
				return nil, errors.New("backslash with nothing after it")
			}
			switch s[i] {
			case 0:
				return nil, errors.New("NUL byte, which no argument can hold")
			case '\n': // a line continued: nothing at all
			default:
				word.WriteByte(s[i])
				inWord = true
			}
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

// splitDoubleQuoted appends to word what stands in s up to the closing double
// quote, and returns how many bytes that took, the quote included.
func splitDoubleQuoted(word *strings.Builder, s string) (int, error) {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case 0:
			return 0, errors.New("NUL byte, which no argument can hold")
		case '"':
			return i + 1, nil
		case '\\':
			if i+1 == len(s) {
				continue // the quote is missing as well, which is reported
			}
			switch s[i+1] {
			case '"', '\\', '$', '`':
				word.WriteByte(s[i+1])
				i++
			case '\n':
				i++
			default:
				word.WriteByte(c)
			}
		default:
			word.WriteByte(c)
		}
	}
	return 0, errors.New("double quote without its closing quote")
}
