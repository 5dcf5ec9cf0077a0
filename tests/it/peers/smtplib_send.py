"""Sends a mail with Python's smtplib: smtplib_send.py PORT FROM TO FILE [CAFILE USER PASSWORD]"""

import smtplib
import ssl
import sys

port, sender, recipient, path = sys.argv[1:5]
with open(path, "rb") as file:
    mail = file.read()
with smtplib.SMTP("localhost", int(port), timeout=60) as smtp:
    if len(sys.argv) > 5:
        cafile, user, password = sys.argv[5:8]
        smtp.starttls(context=ssl.create_default_context(cafile=cafile))
        smtp.login(user, password)
    smtp.sendmail(sender, [recipient], mail, mail_options=["BODY=8BITMIME"])
