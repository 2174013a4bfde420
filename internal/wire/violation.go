package wire

// The rules that a request can break.

// A violation is the rule that a client broke. It is what the client is told
// and the label of the metric, so the constants are all there are.
type violation string

const (
	violationRequestLine    violation = "malformed request line"
	violationPreface        violation = "malformed HTTP/2 preface"
	violationBareCR         violation = "CR without LF"
	violationBareLF         violation = "LF without CR"
	violationFold           violation = "folded header line"
	violationLeadingSpace   violation = "white space before the first header"
	violationColonSpace     violation = "white space before a colon"
	violationName           violation = "invalid header name"
	violationValue          violation = "control byte in a header value"
	violationLength         violation = "invalid Content-Length"
	violationTwoLengths     violation = "more than one Content-Length"
	violationLengthCoding   violation = "Content-Length with Transfer-Encoding"
	violationCoding         violation = "Transfer-Encoding other than chunked"
	violationCodingHTTP10   violation = "Transfer-Encoding in HTTP/1.0"
	violationConnectBody    violation = "CONNECT with a body"
	violationChunkSize      violation = "invalid chunk size"
	violationChunkExtension violation = "invalid chunk extension"
	violationChunkEnd       violation = "chunk data without CRLF at its end"
	violationTrailer        violation = "forbidden trailer"
)
