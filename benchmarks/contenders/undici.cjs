// Node's undici: `request` through a pool of eight connections; eight loops share the bodies. FILE CHUNK_IDS URL
const { createReadStream, createWriteStream } = require("node:fs");
const { createInterface } = require("node:readline");
const { Pool } = require("undici");

async function* bodies(path, size) {
  let chunk = [];
  for await (const line of createInterface({ input: createReadStream(path) })) {
    chunk.push(line.trim());
    if (chunk.length === size) {
      yield chunk.join("\n");
      chunk = [];
    }
  }
  if (chunk.length) yield chunk.join("\n");
}

async function main(path, size, url) {
  const { origin, pathname } = new URL(url);
  const pool = new Pool(origin, { connections: 8 });
  const out = createWriteStream("jobs.txt");
  const chunks = bodies(path, size);
  const headers = { accessToken: process.env.ACCESS_TOKEN, "content-type": "text/plain" };
  const work = async () => {
    for (;;) {
      const { value, done } = await chunks.next();
      if (done) return;
      const answer = await pool.request({ path: pathname, method: "POST", headers, body: value });
      if (answer.statusCode !== 200) throw new Error(`status ${answer.statusCode}`);
      out.write(`${(await answer.body.json()).jobId}\n`);
    }
  };
  await Promise.all(Array.from({ length: 8 }, work));
  out.end();
  await pool.close();
}

main(process.argv[2], Number(process.argv[3]), process.argv[4]).catch((error) => {
  console.error(error);
  process.exit(1);
});
