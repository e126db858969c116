// Calls of gRPC's JavaScript client, which has an HTTP/2 and a protobuf of its own.
//
// calls.js ADDRESS ROOT_CERTIFICATE|- PROTOS < calls.json
// Reads {"calls": [...], "together": bool, "loaded": [...]} and prints one line of JSON for each: a call is raw bytes
// to a path, as cases.py has it; a loaded one is made by a client that proto-loader builds of the project's protos.
'use strict';

const fs = require('fs');
const crypto = require('crypto');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const [address, rootCertificate, protos] = process.argv.slice(2);
const GIVE_UP_MS = 60000;
const COMPRESSION = { '': 0, deflate: 1, gzip: 2 };
const RESERVED = /^(grpc-|content-type|date|user-agent|accept-encoding)/;

const credentials = rootCertificate === '-'
  ? grpc.credentials.createInsecure()
  : grpc.credentials.createSsl(fs.readFileSync(rootCertificate));

function options(compression) {
  return {
    'grpc.max_receive_message_length': -1,
    'grpc.max_send_message_length': -1,
    'grpc.default_compression_algorithm': COMPRESSION[compression],
    // Retries would hide that a call failed once.
    'grpc.enable_retries': 0,
  };
}

const clients = Object.fromEntries(
  Object.keys(COMPRESSION).map((name) => [name, new grpc.Client(address, credentials, options(name))]),
);

function fingerprint(raw) {
  if (raw.length <= 4096) return raw.toString('hex');
  return `sha256:${crypto.createHash('sha256').update(raw).digest('hex')}`;
}

function metadataOf(call) {
  const metadata = new grpc.Metadata({ waitForReady: true });
  for (const [key, value] of call.metadata) {
    metadata.add(key, key.endsWith('-bin') ? Buffer.from(value, 'base64') : value);
  }
  return metadata;
}

function make(call) {
  return new Promise((resolve) => {
    const client = clients[call.compression];
    const same = (raw) => raw;
    const answers = [];
    const names = new Set();
    const note = (metadata) => {
      for (const name of Object.keys(metadata.toJSON())) {
        if (!RESERVED.test(name)) names.add(name);
      }
    };
    const finish = (status) => {
      note(status.metadata);
      resolve({ name: call.name, code: status.code, details: status.details, answers, metadata: [...names].sort() });
    };
    const how = { deadline: Date.now() + (call.deadline_ms === null ? GIVE_UP_MS : call.deadline_ms) };
    const base = [call.path, same, same];
    const requests = call.requests.map((request) => Buffer.from(request, 'base64'));
    const keep = (error, raw) => {
      if (!error) answers.push(fingerprint(raw));
    };
    let made;
    if (call.shape === 'unary') made = client.makeUnaryRequest(...base, requests[0], metadataOf(call), how, keep);
    else if (call.shape === 'client') made = client.makeClientStreamRequest(...base, metadataOf(call), how, keep);
    else if (call.shape === 'server') made = client.makeServerStreamRequest(...base, requests[0], metadataOf(call), how);
    else made = client.makeBidiStreamRequest(...base, metadataOf(call), how);
    made.on('metadata', note);
    made.on('status', finish);
    if (call.shape === 'server' || call.shape === 'bidi') {
      made.on('data', (raw) => {
        answers.push(fingerprint(raw));
        if (answers.length === call.cancel_after) made.cancel();
      });
      made.on('error', () => {}); // The status has it too.
    }
    if (call.shape === 'client' || call.shape === 'bidi') {
      for (const request of requests) made.write(request);
      // A server that is told of the end might answer with the status before the call is cancelled.
      if (call.cancel_after === null) made.end();
    }
  });
}

function makeLoaded(call) {
  const definition = protoLoader.loadSync(call.file, {
    includeDirs: [protos], keepCase: true, longs: String, enums: String, defaults: false, oneofs: false,
  });
  const service = call.service.split('.').reduce((at, name) => at[name], grpc.loadPackageDefinition(definition));
  const client = new service(address, credentials, options(''));
  return new Promise((resolve) => {
    client[call.method](call.request, { deadline: Date.now() + GIVE_UP_MS }, (error, answer) => {
      client.close();
      // Bytes as hex: JSON has none.
      const plain = (_, value) => (value && value.type === 'Buffer' ? Buffer.from(value.data).toString('hex') : value);
      const seen = error ? null : JSON.parse(JSON.stringify(answer), plain);
      resolve({ name: call.name, code: error ? error.code : 0, details: error ? error.details : '', answer: seen });
    });
  });
}

async function main() {
  const { calls, together, loaded } = JSON.parse(fs.readFileSync(0, 'utf8'));
  const print = (result) => process.stdout.write(`${JSON.stringify(result)}\n`);
  if (together) {
    (await Promise.all(calls.map(make))).forEach(print);
  } else {
    for (const call of calls) print(await make(call));
  }
  for (const call of loaded) print(await makeLoaded(call));
  Object.values(clients).forEach((client) => client.close());
}

main();
