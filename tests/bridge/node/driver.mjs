// Lets a test drive the official TypeScript client (v2): one JSON command per line on stdin, one JSON answer per line on stdout.
//
// {"id": 1, "op": "connect", "mode": "legacy"|"modern", "url": …, "headers": …, "capabilities": …, "answers": …} gives
// {"id": 1, "result": {"revision": …}}; further commands name it as their `connection`. `cancel` names the command it cancels.
// What the server says beside results is kept, and told by `heard`.
import { createInterface } from "node:readline";
import { Client, LOG_LEVEL_META_KEY, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const connections = new Map();
const running = new Map();
const NOTICES = [
  "notifications/tools/list_changed",
  "notifications/prompts/list_changed",
  "notifications/resources/list_changed",
  "notifications/resources/updated",
  "notifications/elicitation/complete",
];
const LISTS = {
  "tools/list": ["listTools", "tools"],
  "prompts/list": ["listPrompts", "prompts"],
  "resources/list": ["listResources", "resources"],
  "resources/templates/list": ["listResourceTemplates", "resourceTemplates"],
};

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");

function answerTo(method, params, answers) {
  if (method === "roots/list") return { roots: answers.roots };
  if (method === "elicitation/create") {
    if (answers.declines) return { action: "decline" };
    if (params.mode === "url") return { action: "accept" };
    const names = Object.keys(params.requestedSchema.properties);
    return { action: "accept", content: Object.fromEntries(names.map((name) => [name, answers.content[name]])) };
  }
  const message = { role: "assistant", model: "a-model" };
  if (params.tools?.length) {
    const use = { type: "tool_use", id: "use-1", name: params.tools[0].name, input: { of: "points" } };
    return { ...message, content: [use], stopReason: "toolUse" };
  }
  const asked = [params.messages[0].content].flat()[0].text;
  return { ...message, content: { type: "text", text: `About: ${asked}` }, stopReason: "endTurn" };
}

async function connect({ id, mode, url, headers, capabilities, answers }) {
  const heard = { asked: [], logs: [], notices: [], steps: [] };
  const client = new Client(
    { name: `bridge-node-${mode}`, version: "1.0" },
    { capabilities, versionNegotiation: { mode: mode === "modern" ? "auto" : "legacy" } },
  );
  for (const method of ["elicitation/create", "sampling/createMessage", "roots/list"])
    client.setRequestHandler(method, ({ params }) => {
      heard.asked.push({ method, params: params ?? {} });
      return answerTo(method, params, answers);
    });
  client.setNotificationHandler("notifications/message", ({ params }) => void heard.logs.push(params));
  for (const method of NOTICES)
    client.setNotificationHandler(method, ({ params }) => void heard.notices.push({ method, params: params ?? {} }));
  client.onerror = () => {};
  const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
  await client.connect(transport);
  const modern = client.getProtocolEra() === "modern";
  connections.set(id, { client, transport, heard, answers, modern, watched: [], listening: null, level: null });
  return { revision: client.getNegotiatedProtocolVersion() };
}

async function follow(connection, filter) {
  await connection.listening?.close();
  connection.listening = await connection.client.listen(filter);
  return connection.listening.honoredFilter;
}

const OPERATIONS = {
  heard: ({ heard }) => heard,
  async begin(connection, { declines }) {
    if (connection.modern) await connection.listening?.close();
    else await OPERATIONS.watch(connection, { uris: [] });
    for (const list of Object.values(connection.heard)) list.length = 0;
    connection.answers.declines = declines;
    Object.assign(connection, { listening: null, level: null });
    return {};
  },
  ping: ({ client }) => client.ping(),
  read: ({ client }, { uri }) => client.readResource({ uri }, { cacheMode: "bypass" }),
  prompt: ({ client }, { name, arguments: given }) => client.getPrompt({ name, arguments: given ?? {} }),
  complete: ({ client }, { params }) => client.complete(params),
  async call({ client, heard, level }, { name, arguments: given, progress }, signal) {
    const options = { signal };
    if (progress) options.onprogress = ({ progress: done, total, message }) => heard.steps.push([done, total, message]);
    const meta = level === null ? {} : { _meta: { [LOG_LEVEL_META_KEY]: level } };
    return client.callTool({ name, arguments: given, ...meta }, options);
  },
  async items({ client }, { method }) {
    const [list, member] = LISTS[method];
    return (await client[list]({}, { cacheMode: "bypass" }))[member];
  },
  async level(connection, { level }) {
    if (connection.modern) connection.level = level;
    else await connection.client.setLoggingLevel(level);
    return {};
  },
  async listen(connection) {
    if (connection.modern)
      await follow(connection, { toolsListChanged: true, promptsListChanged: true, resourcesListChanged: true });
    return {};
  },
  async watch(connection, { uris }) {
    if (connection.modern) {
      const honoured = (await follow(connection, { resourceSubscriptions: uris })).resourceSubscriptions ?? [];
      if (String([...honoured].sort()) !== String([...uris].sort())) throw new Error(`honoured: ${honoured}`);
      return {};
    }
    for (const uri of uris) if (!connection.watched.includes(uri)) await connection.client.subscribeResource({ uri });
    for (const uri of connection.watched) if (!uris.includes(uri)) await connection.client.unsubscribeResource({ uri });
    connection.watched = uris;
    return {};
  },
  async rootsChanged({ client }) {
    await client.sendRootsListChanged();
    return {};
  },
  async close({ client, transport, listening }) {
    await listening?.close();
    if (transport.sessionId !== undefined) await transport.terminateSession();
    await client.close();
    return {};
  },
};

function described(error) {
  return {
    message: String(error?.message ?? error),
    cause: error?.cause ? String(error.cause?.message ?? error.cause) : "",
    code: error?.code ?? null,
    data: error?.data ?? null,
    status: error?.status ?? error?.data?.status ?? null,
  };
}

async function carryOut(command) {
  const abort = new AbortController();
  running.set(command.id, abort);
  try {
    if (command.op === "connect") return { id: command.id, result: await connect(command) };
    const connection = connections.get(command.connection);
    if (command.op === "close") connections.delete(command.connection);
    return { id: command.id, result: (await OPERATIONS[command.op](connection, command, abort.signal)) ?? null };
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
