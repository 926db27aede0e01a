// Lets a test drive the official TypeScript clients: one JSON command per line on stdin, one JSON answer per line on stdout.
//
// {"id": 1, "op": "connect", "sdk": "v1"|"v2", "mode": "legacy"|"auto"|"modern"|"sse", "url": …, "headers": {…}, "name": …} gives
// {"id": 1, "result": {"connection": 1, …}}; further operations name the connection. `cancel` names the command it cancels.
// {"connection": 1, "notice": "notifications/…"} tells of a notification; a command's progress stands in its own answer.
import { createInterface } from "node:readline";
import * as v2 from "@modelcontextprotocol/client";
import { Client as ClientV1 } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StreamableHTTPClientTransport as TransportV1 } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import * as typesV1 from "@modelcontextprotocol/sdk/types.js";

const connections = new Map();
const running = new Map();
const CHANGES = ["tools", "resources", "prompts"];
const MODES = { legacy: "legacy", auto: "auto", modern: { pin: "2026-07-28" } };

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");

function notice(number, method) {
  say({ connection: number, notice: method });
}

async function connect(command) {
  const number = command.id;
  const info = { name: command.name, version: "1.0" };
  const options = { requestInit: { headers: command.headers } };
  const complaints = [];
  let client, transport;
  if (command.sdk === "v1") {
    client = new ClientV1(info, { capabilities: {} });
    transport = new (command.mode === "sse" ? SSEClientTransport : TransportV1)(new URL(command.url), options);
    for (const [method, schema] of [
      ["tools", typesV1.ToolListChangedNotificationSchema],
      ["resources", typesV1.ResourceListChangedNotificationSchema],
      ["prompts", typesV1.PromptListChangedNotificationSchema],
    ])
      client.setNotificationHandler(schema, () => notice(number, `notifications/${method}/list_changed`));
  } else {
    client = new v2.Client(info, { capabilities: {}, versionNegotiation: { mode: MODES[command.mode] } });
    transport = new v2.StreamableHTTPClientTransport(new URL(command.url), options);
    for (const kind of CHANGES) {
      const method = `notifications/${kind}/list_changed`;
      client.setNotificationHandler(method, () => notice(number, method));
    }
  }
  client.onerror = (error) => complaints.push(String(error?.message ?? error));
  await client.connect(transport);
  connections.set(number, { client, transport, sdk: command.sdk, complaints, listening: null });
  return {
    connection: number,
    revision: command.sdk === "v1" ? (transport.protocolVersion ?? transport._protocolVersion) : client.getNegotiatedProtocolVersion(),
    serverInfo: client.getServerVersion(),
    capabilities: client.getServerCapabilities(),
    instructions: client.getInstructions() ?? null,
  };
}

async function pages(list, member) {
  const found = [];
  let cursor;
  let count = 0;
  do {
    const page = await list(cursor === undefined ? {} : { cursor });
    found.push(...page[member]);
    cursor = page.nextCursor;
    count += 1;
  } while (cursor !== undefined);
  return { items: found, pages: count };
}

// The v2 client walks every page when no cursor is given; then there is one page to count.
const OPERATIONS = {
  tools: ({ client }) => pages((params) => client.listTools(params), "tools"),
  resources: ({ client }) => pages((params) => client.listResources(params), "resources"),
  templates: ({ client }) => pages((params) => client.listResourceTemplates(params), "resourceTemplates"),
  prompts: ({ client }) => pages((params) => client.listPrompts(params), "prompts"),
  read: ({ client }, { uri }) => client.readResource({ uri }),
  prompt: ({ client }, { name, arguments: given }) => client.getPrompt({ name, arguments: given ?? {} }),
  complete: ({ client }, { params }) => client.complete(params),
  ping: ({ client }) => client.ping(),
  complaints: ({ complaints }) => complaints,
  async call({ client, sdk }, { name, arguments: given, progress }, signal) {
    const steps = [];
    const options = { signal };
    if (progress) options.onprogress = ({ progress: done, total }) => steps.push([done, total]);
    const params = { name, arguments: given };
    const result = sdk === "v1" ? await client.callTool(params, undefined, options) : await client.callTool(params, options);
    return { result, steps };
  },
  async listen(connection) {
    if (connection.client.getProtocolEra?.() === "modern")
      connection.listening = await connection.client.listen({
        toolsListChanged: true,
        resourcesListChanged: true,
        promptsListChanged: true,
      });
    return {};
  },
  async close({ client, transport, sdk, listening }) {
    await listening?.close();
    if (transport.sessionId !== undefined) await transport.terminateSession();
    await client.close();
    return {};
  },
};

function described(error) {
  const found = { name: error?.name ?? "Error", message: String(error?.message ?? error), code: error?.code ?? null };
  found.data = error?.data ?? null;
  found.status = error?.status ?? error?.data?.status ?? null;
  if (error?.cause) found.cause = String(error.cause?.message ?? error.cause);
  return found;
}

async function carryOut(command) {
  const abort = new AbortController();
  running.set(command.id, abort);
  try {
    if (command.op === "connect") return { id: command.id, result: await connect(command) };
    const connection = connections.get(command.connection);
    if (command.op === "close") connections.delete(command.connection);
    return { id: command.id, result: await OPERATIONS[command.op](connection, command, abort.signal) };
  } catch (error) {
    return { id: command.id, error: described(error) };
  } finally {
    running.delete(command.id);
  }
}

process.on("unhandledRejection", (error) => process.stderr.write(`unhandled: ${error?.stack ?? error}\n`));
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command.op === "cancel") running.get(command.target)?.abort("the test cancels");
  else carryOut(command).then(say);
}
process.exit(0);
