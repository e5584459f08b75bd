//! The status codes of responses and their reason phrases: one list for rendering them (`http`) and
//! for counting them (`metrics`).

/// Calls a macro with all rows `code "reason"`.
macro_rules! with_status_codes {
    ($callback:ident) => {
        $callback! {
            100 "Continue"
            200 "OK"
            201 "Created"
            202 "Accepted"
            204 "No Content"
            304 "Not Modified"
            400 "Bad Request"
            401 "Unauthorized"
            403 "Forbidden"
            404 "Not Found"
            405 "Method Not Allowed"
            406 "Not Acceptable"
            408 "Request Timeout"
            409 "Conflict"
            410 "Gone"
            411 "Length Required"
            412 "Precondition Failed"
            413 "Content Too Large"
            414 "URI Too Long"
            415 "Unsupported Media Type"
            417 "Expectation Failed"
            421 "Misdirected Request"
            429 "Too Many Requests"
            431 "Request Header Fields Too Large"
            500 "Internal Server Error"
            501 "Not Implemented"
            503 "Service Unavailable"
            504 "Gateway Timeout"
            505 "HTTP Version Not Supported"
            507 "Insufficient Storage"
        }
    };
}

pub(crate) use with_status_codes;
