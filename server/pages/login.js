// Logs a browser in with an API key. The key goes to the server once and is kept nowhere.

const find = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);

function complain(words) {
  const place = find("trouble");
  place.textContent = words;
  place.hidden = false;
}

const target = query.get("next") || "/";
const ways = await (await fetch("login/ways")).json();
if (ways.oidc) {
  find("organisation").hidden = false;
  find("organisation").firstElementChild.href = `login/oidc?${new URLSearchParams({ next: target })}`;
}
if (query.get("trouble")) complain(ways.troubles[query.get("trouble")] || "The login failed. Begin again.");

find("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await fetch("login", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ key: find("key").value.trim(), next: target }),
  });
  const body = await answer.json();
  if (answer.ok) location.replace(body.next);
  else complain(body.message);
});
find("key").focus();
