"""What schemathesis is not told by the document: a mail goes out as it is."""

import schemathesis

schemathesis.serializer.alias("message/rfc822", "application/octet-stream")
