// A relay with Node's own modules: node node.js SOCKET UPSTREAM_PORT
const http = require("http");
const [socket, port] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity, maxFreeSockets: 64 });

http
  .createServer((request, response) => {
    const headers = { "Content-Type": "application/json", "Content-Length": request.headers["content-length"] };
    const options = { port, agent, method: "POST", path: "/v1/chat/completions", headers };
    const upstream = http.request(options, (answer) => {
      response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
      answer.setEncoding("utf8");
      let rest = "";
      answer.on("data", (text) => {
        const lines = (rest + text).split("\n");
        rest = lines.pop();
        let output = "";
        for (const line of lines) {
          if (!line.startsWith("data: ")) continue;
          const data = line.slice(6).trimEnd();
          if (data === "[DONE]") {
            output += "event: done\ndata: {}\n\n";
            continue;
          }
          const text = JSON.parse(data).choices[0].delta.content;
          if (text) output += `event: token\ndata: ${JSON.stringify({ t: text })}\n\n`;
        }
        if (output) response.write(output);
      });
      answer.on("end", () => response.end());
    });
    upstream.on("error", () => response.destroy());
    response.on("close", () => upstream.destroy());
    request.pipe(upstream);
  })
  .listen(socket);
