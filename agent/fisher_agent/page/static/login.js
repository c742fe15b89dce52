// The login form: the token goes to the agent once; what comes back is a cookie that scripts cannot read.
import { post } from "./api.js";

const form = document.getElementById("login");
const said = document.getElementById("said");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  said.textContent = "";
  try {
    await post("/api/login", { token: document.getElementById("token").value });
    location.replace("/");
  } catch (error) {
    said.textContent = error.message;
    button.disabled = false;
  }
});
