-- wrk with one ready body: the file in BODY.
local file = io.open(os.getenv("BODY"), "rb")
wrk.method = "POST"
wrk.body = file:read("*all")
wrk.headers["Content-Type"] = "text/plain"
wrk.headers["accessToken"] = os.getenv("ACCESS_TOKEN")
file:close()
