// Sends or receives at an Event Hubs endpoint with rhea. Says what it saw as one line of JSON.
// node peer.js send PORT PASSWORD ADDRESS BODY...          each body is one message
// node peer.js receive PORT PASSWORD ADDRESS SELECTOR COUNT
// node peer.js drain PORT PASSWORD ADDRESS CREDIT          what there is now, until the credit has come back
'use strict';
const rhea = require('rhea');
const [what, port, password, address, ...rest] = process.argv.slice(2);
const connection = rhea.create_container().connect({
  host: '127.0.0.1', port: Number(port), username: 'emulator', password, reconnect: false,
});
connection.on('error', fail);
for (const name of ['connection_error', 'session_error', 'sender_error', 'receiver_error', 'disconnected', 'rejected']) {
  connection.on(name, (context) => fail((context.receiver || context.sender || context.connection || {}).error || name));
}

function end(seen) {
  console.log(JSON.stringify(seen));
  connection.removeAllListeners('disconnected');
  connection.close();
}

function fail(error) {
  console.log(JSON.stringify({ error: error.condition || error.message || String(error) }));
  process.exit(0);
}

if (what === 'send') {
  const bodies = rest.slice();
  let accepted = 0;
  const sender = connection.open_sender(address);
  connection.on('sendable', () => {
    while (sender.sendable() && bodies.length) {
      sender.send({ body: rhea.message.data_section(Buffer.from(bodies.shift())), application_properties: { n: rest.length } });
    }
  });
  connection.on('accepted', () => { if (++accepted === rest.length) end({ accepted }); });
} else if (what === 'drain') {
  const seen = [];
  const receiver = connection.open_receiver({ source: { address }, credit_window: 0 });
  connection.on('receiver_open', () => { receiver.drain = true; receiver.add_credit(Number(rest[0])); });
  connection.on('message', ({ message }) => seen.push(message.body.content.toString()));
  connection.on('receiver_drained', () => end(seen));
} else {
  const [selector, count] = rest;
  const seen = [];
  connection.open_receiver({ source: { address, filter: rhea.filter.selector(selector) }, credit_window: 10 });
  connection.on('message', ({ message }) => {
    if (seen.length < Number(count)) {
      const marks = message.message_annotations;
      seen.push([message.body.content.toString(), Number(marks['x-opt-sequence-number']), marks['x-opt-offset']]);
      if (seen.length === Number(count)) end(seen);
    }
  });
}
