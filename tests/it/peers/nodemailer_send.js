// Sends a mail with nodemailer: nodemailer_send.js PORT FROM TO FILE [CAFILE USER PASSWORD]
"use strict";
const fs = require("fs");
const nodemailer = require("nodemailer");

const [port, from, to, path, cafile, user, pass] = process.argv.slice(2);
const secure = cafile
  ? { requireTLS: true, tls: { ca: fs.readFileSync(cafile) }, auth: { user, pass } }
  : { ignoreTLS: true };
const transport = nodemailer.createTransport({ host: "localhost", port: Number(port), ...secure });
transport
  .sendMail({ envelope: { from, to: [to] }, raw: fs.readFileSync(path) })
  .then((info) => console.log(info.response))
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
