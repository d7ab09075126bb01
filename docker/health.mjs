// The images' HEALTHCHECK: exits with 0 where the server of this container answers GET /health.
import http from 'node:http';
import https from 'node:https';

const { LORAX_PORT = '8000', LORAX_TLS_CERT } = process.env;
const options = {
  ...{ host: '127.0.0.1', port: LORAX_PORT, path: '/health', timeout: 4_000 },
  // The certificate is for the name that clients use.
  rejectUnauthorized: false,
};
const request = (LORAX_TLS_CERT ? https : http).get(options, ({ statusCode }) => {
  process.exit(statusCode === 200 ? 0 : 1);
});
request.on('timeout', () => request.destroy(new Error('no answer')));
request.on('error', ({ message }) => {
  process.stderr.write(`${message}\n`);
  process.exit(1);
});
