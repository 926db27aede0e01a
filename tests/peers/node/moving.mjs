// A stdio server of the 2025 revisions on the official TypeScript SDK, whose lists change while it runs.
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { z } from "zod";

const server = new McpServer({ name: "moving-legacy", version: "1.0.0" });
const extra = new Map();
let cancelled = 0;
const text = (value) => ({ content: [{ type: "text", text: String(value) }] });

for (let number = 0; number < Number(process.env.MANY ?? 0); number += 1)
  server.registerTool(`tool-${String(number).padStart(3, "0")}`, { description: `Tool ${number} of many.` }, () => text(number));
server.registerTool("add_tool", { inputSchema: { name: z.string() } }, ({ name }) => {
  extra.set(name, server.registerTool(name, { description: "Came later." }, () => text(`${name} works`)));
  return text("added");
});
server.registerTool("remove_tool", { inputSchema: { name: z.string() } }, ({ name }) => {
  extra.get(name)?.remove();
  return text("removed");
});
server.registerTool("add_prompt", { inputSchema: { name: z.string() } }, ({ name }) => {
  server.registerPrompt(name, {}, () => ({ messages: [{ role: "user", content: { type: "text", text: name } }] }));
  return text("added");
});
server.registerTool("add_resource", { inputSchema: { name: z.string() } }, ({ name }) => {
  server.registerResource(name, `moving://${name}`, {}, (uri) => ({ contents: [{ uri: uri.href, text: name }] }));
  return text("added");
});
server.registerTool("slow", { inputSchema: { seconds: z.number() } }, async ({ seconds }, { signal }) => {
  signal.addEventListener("abort", () => (cancelled += 1));
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  return text("slept");
});
server.registerTool("cancelled", {}, () => text(cancelled));
server.registerTool("process_id", {}, () => text(process.pid));
server.registerPrompt("first", {}, () => ({ messages: [{ role: "user", content: { type: "text", text: "first" } }] }));
server.registerResource("first", "moving://first", {}, (uri) => ({ contents: [{ uri: uri.href, text: "first" }] }));
await server.connect(new StdioServerTransport());
