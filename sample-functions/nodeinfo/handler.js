// Says where it runs: one JSON object about the machine and the request.
'use strict';

const os = require('os');

const info = {
  hostname: os.hostname(),
  platform: os.platform(),
  arch: os.arch(),
  node: process.version,
  cpus: os.cpus().length,
  memory_bytes: os.totalmem(),
  uptime_seconds: Math.round(os.uptime()),
  request: {
    method: process.env.Http_Method,
    path: process.env.Http_Path,
    call_id: process.env.Http_X_Call_Id,
  },
};

process.stdout.write(JSON.stringify(info, null, 2) + '\n');
